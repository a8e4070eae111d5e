"""What static convolutional networks are to the rest of ferbench."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ferbench.methods.cnn.recipe import Recipe
from ferbench.methods.cnn.schedule import stage_of
from ferbench.methods.interface import PRETRAIN, Family, Parent, Recogniser, Task
from ferbench.methods.recipes import Method

if TYPE_CHECKING:
    from ferbench.protocol.protocol import Protocol
    from ferbench.runs.record import Record
    from ferbench.runs.store import Store
    from ferbench.training.deployable import Deployable
    from ferbench.training.device import Device


class CnnFamily(Family):
    """A network learns faces in the wild by softmax, then the target set by the method's loss.

    Pre-training belongs to the trunk: methods of one trunk and preset share it, whatever their loss.
    """

    recipe = Recipe

    def recogniser(self, method: Method, kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.cnn.recogniser import Cnn

        return Cnn(method, kind, classes)

    def needs(self, method: Method) -> frozenset[str]:
        """Who is who, where images of a person are compared."""
        return frozenset({"subjects"} if method.recipe.loss.kind in ("identity", "tuplet") else ())

    def parents(self, kind: str, method: Method, protocol: Protocol) -> list[Parent]:
        return super().parents(kind, method, protocol) if method.recipe.readings.pretrained else []

    def identity(self, kind: str, method: Method, protocol: Protocol) -> dict[str, Any]:
        recipe: Recipe = method.recipe
        stage = stage_of(kind, recipe, protocol)
        content = {"network": recipe.network.model_dump(), "readings": recipe.readings.model_dump()}
        own = {} if kind == PRETRAIN else {"loss": recipe.loss.model_dump()}
        return {**content, **own, "stage": stage.identity()}

    def owner(self, kind: str, method: Method) -> tuple[str, str]:
        """A pre-training is named after the trunk."""
        return (method.recipe.network.trunk if kind == PRETRAIN else method.name), method.preset

    def estimate(self, device: Device) -> Callable[[Task, int], float]:
        from ferbench.methods.cnn.inspection import Estimate

        return Estimate(device)

    def module(self, record: Record, store: Store) -> Deployable:
        from ferbench.methods.cnn.trained import deployed

        return deployed(record, store)

    def describe(self, method: Method, protocol: Protocol) -> list[tuple[str, dict[str, Any]]]:
        from ferbench.methods.cnn.inspection import describe

        return describe(method.recipe, len(protocol.classes))


FAMILY = CnnFamily()
