"""What WS-LGAN and its ablations are to the rest of ferbench."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from ferbench import DEFAULT_METHOD
from ferbench.errors import UsageError
from ferbench.labels import PART_ATTRIBUTES
from ferbench.methods.interface import FOLD, PRETRAIN, AttributeSet, Family, Parent, Recogniser, Task, Timed
from ferbench.methods.recipes import Method, resolve
from ferbench.methods.wslgan.recipe import PairStage, Recipe
from ferbench.protocol import splits
from ferbench.runs.record import START, TEACHER
from ferbench.schema import plain
from ferbench.training.schedule import Stage

if TYPE_CHECKING:
    from ferbench.protocol.protocol import Protocol
    from ferbench.runs.record import Record
    from ferbench.runs.store import Store
    from ferbench.training.deployable import Deployable
    from ferbench.training.device import Device

ATTENTION = "attention"


class WSLGANFamily(Family):
    """Stage 1 learns attention maps from attributes; stage 2 pre-trains on faces in the wild, then fine-tunes."""

    recipe = Recipe
    revision = {ATTENTION: 2}  # noqa: RUF012
    trainings = {ATTENTION: len(PART_ATTRIBUTES)}  # noqa: RUF012
    titles = {ATTENTION: "stage 1: attention maps", PRETRAIN: "stage 2: pre-training", FOLD: "stage 2"}  # noqa: RUF012

    def recogniser(self, method: Method, kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.wslgan.recognisers import Attention, Network

        return Attention(method) if kind == ATTENTION else Network(method, kind, classes)

    def parents(self, kind: str, method: Method, protocol: Protocol) -> list[Parent]:
        """Attention maps for whatever takes them; pre-training for folds; for pre-training the pre-trainings of other
        presets that teach it or that it goes on from, as their file has them, whatever was changed here."""
        if kind == ATTENTION:
            return []
        found = []
        if method.recipe.architecture.needs_attention:
            found.append(Parent(ATTENTION, ATTENTION, method, protocol.attributes))
        if kind == FOLD and protocol.pretrain:
            found.append(Parent(PRETRAIN, PRETRAIN, method, protocol.pretrain))
        if kind == PRETRAIN:
            found += self._forerunners(method, protocol)
        return found

    def _forerunners(self, method: Method, protocol: Protocol) -> list[Parent]:
        stage = method.recipe.pretrain
        presets = {f"{TEACHER}{preset}": preset for preset in stage.teachers}
        presets |= {f"{START}{stage.start}": stage.start} if stage.start else {}
        found = {role: resolve(method.name, preset, protocol.name) for role, preset in presets.items()}
        if stage.start:
            begun = found[f"{START}{stage.start}"].recipe.architecture
            if not method.recipe.architecture.takes_weights_of(begun):
                raise UsageError(
                    f"pretrain.start: the network of {method.name} at preset {stage.start} has other "
                    f"shapes than that at {method.preset} here"
                )
        return [Parent(role, PRETRAIN, one, protocol.pretrain) for role, one in found.items()]

    def identity(self, kind: str, method: Method, protocol: Protocol) -> dict[str, Any]:
        recipe, readings = method.recipe, method.recipe.readings.model_dump()
        stage = self.stage(kind, method, protocol)
        if kind == ATTENTION:
            return {
                "generator": recipe.architecture.generator(),
                "readings": {name: readings[name] for name in ("normalise", "border")},
                "stage": stage.identity(),
            }
        assert isinstance(stage, PairStage)
        return {
            "architecture": recipe.architecture.identity(),
            "losses": asdict(recipe.losses_of(stage)),
            "readings": readings,
            "stage": stage.identity(),
        }

    def stage(self, kind: str, method: Method, protocol: Protocol) -> Stage:
        """The schedule of a training. A protocol without a pre-training set is trained as one would be, without other
        networks, which saw its test set."""
        recipe = method.recipe
        if kind == ATTENTION:
            return recipe.attention
        if kind == PRETRAIN:
            return recipe.pretrain
        return recipe.finetune if protocol.pretrain else recipe.pretrain.alone()

    def threads(self, method: Method) -> int:
        return method.recipe.threads

    def epochs(self, kind: str, method: Method, protocol: Protocol) -> int:
        return self.stage(kind, method, protocol).epochs

    def owner(self, kind: str, method: Method) -> tuple[str, str]:
        """All methods share one AMG, and presets that of the one that they name."""
        if kind == ATTENTION:
            return DEFAULT_METHOD, method.recipe.amg or method.preset
        return method.name, method.preset

    def check(self, role: str, record: Record, method: Method, protocol: Protocol) -> None:
        """An AMG or a pre-trained network is taken where it has the shapes of the method's own."""
        shapes = method.recipe.architecture
        field, own = ("generator", shapes.generator()) if role == ATTENTION else ("architecture", shapes.identity())
        found = record.identity.recipe.get(field, {})
        differ = [f"{name} {found.get(name)}, not {v}" for name, v in plain(own).items() if v != found.get(name)]
        if differ:
            raise UsageError(
                f"the {'AMG' if role == ATTENTION else 'network'} of run {record.key} has another shape "
                f"than {method.title} has with preset {method.preset}: {', '.join(differ)}"
            )

    def attribute_image_count(self, data: AttributeSet) -> int:
        """Those of both parts."""
        parts = (splits.attribute_split(data.protocol, data.faces, part, data.seed) for part in PART_ATTRIBUTES)
        return sum(len(split.train) for split in parts)

    def estimate(self, device: Device) -> Callable[[Task, int], float]:
        from ferbench.methods.wslgan.estimate import Estimate

        return Estimate(device)

    def module(self, record: Record, store: Store) -> Deployable:
        from ferbench.methods.wslgan.trained import deployed

        return deployed(record, store)

    def timed(self, method: Method, classes: int, seed: int) -> Timed:
        from ferbench.methods.wslgan.timed import Timed as Networks

        return Networks(method, classes, seed)

    def maps(self, record: Record, store: Store, images: np.ndarray) -> tuple[str, dict[str, np.ndarray]]:
        from ferbench.methods.wslgan.trained import maps

        return maps(record, store, images)

    def describe(self, method: Method, protocol: Protocol) -> list[tuple[str, dict[str, Any]]]:
        from ferbench.methods.wslgan.inspection import describe

        return describe(method, len(protocol.classes))


FAMILY = WSLGANFamily()
