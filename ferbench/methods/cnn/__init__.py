"""Static convolutional networks: trunks that are pre-trained by softmax, and losses that shape their features.

Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ferbench.methods.cnn.recipe import CnnRecipe
from ferbench.methods.interface import FOLD, PRETRAIN, AttributeLearner, AttributeSet, Family, Parent, Recogniser, Task

if TYPE_CHECKING:
    from ferbench.methods.recipes import Method
    from ferbench.protocol.protocol import Protocol
    from ferbench.runs.record import Record
    from ferbench.runs.store import Store
    from ferbench.training.device import Device
    from ferbench.training.networks import Deployable


class CnnFamily(Family[CnnRecipe]):
    """A network learns faces in the wild by softmax, then the target set by the method's loss.

    A pre-training belongs to the trunk: methods with the same trunk and preset share it, whatever their loss.
    """

    recipe = CnnRecipe

    def recogniser(self, method: Method[CnnRecipe], kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.cnn.recogniser import CnnRecogniser

        return CnnRecogniser(method.recipe, kind, classes)

    def attribute_learner(self, method: Method[CnnRecipe], kind: str) -> AttributeLearner:
        from ferbench.methods.cnn.recogniser import CnnAttributeLearner

        return CnnAttributeLearner(method.recipe, kind)

    def attribute_image_count(self, data: AttributeSet) -> int:
        return len(data.faces)

    def needs(self, method: Method[CnnRecipe]) -> frozenset[str]:
        """The subjects, where images of a person are compared."""
        return frozenset({"subjects"} if method.recipe.loss.kind in ("identity", "tuplet") else ())

    def parents(self, kind: str, method: Method[CnnRecipe], protocol: Protocol) -> list[Parent]:
        """The pre-training of a fold where the recipe has one, and the parent network that the loss needs."""
        recipe = method.recipe
        parents = super().parents(kind, method, protocol) if recipe.interpretation.pretrained else []
        if recipe.parent_kind and (kind == FOLD or (kind == PRETRAIN and recipe.pretraining_loss is not None)):
            parents.insert(0, Parent(recipe.parent_kind, recipe.parent_kind, method, protocol.attributes))
        return parents

    def identity(self, kind: str, method: Method[CnnRecipe], protocol: Protocol) -> dict[str, Any]:
        recipe = method.recipe
        content: dict[str, Any] = {
            "network": recipe.network.model_dump(),
            "readings": recipe.interpretation.model_dump(),
        }
        if kind == recipe.parent_kind:
            content |= {"network": recipe.parent_shape.model_dump(), "learns": recipe.parent_target}
        elif loss := recipe.pretraining_loss if kind == PRETRAIN else recipe.loss:
            content |= {"loss": loss.model_dump()}
        return content | {"stage": recipe.stage(kind, protocol).identity()}

    def owner(self, kind: str, method: Method[CnnRecipe]) -> tuple[str, str]:
        """A pre-training is named after the trunk."""
        return (method.recipe.network.trunk if kind == PRETRAIN else method.name), method.preset

    def estimate(self, device: Device) -> Callable[[Task, int], float]:
        from ferbench.methods.cnn.recogniser import CnnEstimate

        return CnnEstimate(device)

    def module(self, record: Record, store: Store) -> Deployable:
        from ferbench.methods.cnn.recogniser import deployed

        return deployed(record, store)

    def describe(self, method: Method[CnnRecipe], protocol: Protocol) -> list[tuple[str, dict[str, Any]]]:
        from ferbench.methods.cnn.recogniser import describe

        return describe(method.recipe, len(protocol.classes))


FAMILY = CnnFamily()
