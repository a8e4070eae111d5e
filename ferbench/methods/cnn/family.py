"""What static convolutional networks are to the rest of ferbench."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ferbench.methods.cnn.recipe import Recipe
from ferbench.methods.cnn.schedule import asked_shape, learns, stage_of
from ferbench.methods.interface import FOLD, PRETRAIN, AttributeLearner, AttributeSet, Family, Parent, Recogniser, Task
from ferbench.methods.recipes import Method

if TYPE_CHECKING:
    from ferbench.protocol.protocol import Protocol
    from ferbench.runs.record import Record
    from ferbench.runs.store import Store
    from ferbench.training.device import Device
    from ferbench.training.networks import Deployable


class CnnFamily(Family):
    """A network learns faces in the wild by softmax, then the target set by the method's loss.

    Pre-training belongs to the trunk: methods of one trunk and preset share it, whatever their loss.
    """

    recipe = Recipe

    def recogniser(self, method: Method, kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.cnn.recogniser import Cnn

        return Cnn(method, kind, classes)

    def attribute_learner(self, method: Method, kind: str) -> AttributeLearner:
        from ferbench.methods.cnn.attributes import Attributes

        return Attributes(method, kind)

    def attribute_image_count(self, data: AttributeSet) -> int:
        return len(data.faces)

    def needs(self, method: Method) -> frozenset[str]:
        """Who is who, where images of a person are compared."""
        return frozenset({"subjects"} if method.recipe.loss.kind in ("identity", "tuplet") else ())

    def parents(self, kind: str, method: Method, protocol: Protocol) -> list[Parent]:
        """Pre-training for folds where the recipe has one, and the network that the method's loss asks."""
        recipe: Recipe = method.recipe
        found = super().parents(kind, method, protocol) if recipe.interpretation.pretrained else []
        asking = kind == FOLD or (kind == PRETRAIN and recipe.pretrains is not None)
        if recipe.asks and asking:
            found.insert(0, Parent(recipe.asks, recipe.asks, method, protocol.attributes))
        return found

    def identity(self, kind: str, method: Method, protocol: Protocol) -> dict[str, Any]:
        recipe: Recipe = method.recipe
        stage = stage_of(kind, recipe, protocol)
        content = {"network": recipe.network.model_dump(), "readings": recipe.interpretation.model_dump()}
        if kind == recipe.asks:
            own = {"network": asked_shape(recipe).model_dump(), "learns": learns(recipe)}
            return {**content, **own, "stage": stage.identity()}
        loss = recipe.pretrains if kind == PRETRAIN else recipe.loss
        own = {} if loss is None else {"loss": loss.model_dump()}
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
