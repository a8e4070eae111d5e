"""Networks of timm, trained by cross-entropy or by losses of recent methods for expressions in the wild.

Importing this loads neither torch nor timm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ferbench.methods.backbone.recipe import BackboneRecipe
from ferbench.methods.interface import Family, Recogniser, Task

if TYPE_CHECKING:
    from ferbench.data.views import View
    from ferbench.methods.recipes import Method
    from ferbench.protocol.protocol import Protocol
    from ferbench.runs.record import Record
    from ferbench.runs.store import Store
    from ferbench.training.device import Device
    from ferbench.training.networks import Deployable


class BackboneFamily(Family[BackboneRecipe]):
    """A network of timm learns the target set, from random weights or from those of a file."""

    recipe = BackboneRecipe

    def recogniser(self, method: Method[BackboneRecipe], kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.backbone.recogniser import BackboneRecogniser

        return BackboneRecogniser(method, classes)

    def view(self, method: Method[BackboneRecipe]) -> View:
        return method.recipe.input.view

    def identity(self, kind: str, method: Method[BackboneRecipe], protocol: Protocol) -> dict[str, Any]:
        """The recipe, in which weights are named by the SHA-256 of their file, wherever it lies."""
        recipe = method.recipe
        network = {"model": recipe.network.model}
        if recipe.network.weights:
            from ferbench.methods.backbone.weights import digest, weights_file

            network["weights"] = digest(weights_file(recipe.network.weights, method.folder))
        tables = {name: getattr(recipe, name).model_dump() for name in ("input", "loss", "augment")}
        return {"network": network, **tables, "stage": recipe.finetune.identity()}

    def estimate(self, device: Device) -> Callable[[Task, int], float]:
        from ferbench.methods.backbone.recogniser import BackboneEstimate

        return BackboneEstimate(device)

    def module(self, record: Record, store: Store) -> Deployable:
        from ferbench.methods.backbone.recogniser import deployed
        from ferbench.methods.recipes import Method

        return deployed(Method.model_validate(record.facts["method"]), record, store)

    def describe(self, method: Method[BackboneRecipe], protocol: Protocol) -> list[tuple[str, dict[str, Any]]]:
        from ferbench.methods.backbone.recogniser import describe

        return describe(method.recipe, len(protocol.classes))


FAMILY = BackboneFamily()
