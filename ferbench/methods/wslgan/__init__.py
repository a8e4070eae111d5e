"""WS-LGAN and its ablations: both stages of Zhang, Su, Wang 2020. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ferbench import DEFAULT_METHOD
from ferbench.errors import UsageError
from ferbench.labels import PART_ATTRIBUTES
from ferbench.methods.interface import (
    FOLD,
    PRETRAIN,
    AttributeLearner,
    AttributeSet,
    Family,
    Parent,
    Recogniser,
    Task,
    TimedMethod,
)
from ferbench.methods.recipes import Method, resolve
from ferbench.methods.wslgan.recipe import ATTENTION, PairStage, WslganRecipe
from ferbench.protocol import splits
from ferbench.runs.record import START, TEACHER
from ferbench.schema import plain

if TYPE_CHECKING:
    from ferbench.protocol.protocol import Protocol
    from ferbench.runs.record import Record
    from ferbench.runs.store import Store
    from ferbench.training.device import Device
    from ferbench.training.networks import Deployable


class WSLGANFamily(Family[WslganRecipe]):
    """Stage 1 learns attention maps from attributes; stage 2 pre-trains on faces in the wild, then fine-tunes."""

    recipe = WslganRecipe
    revision: ClassVar[Mapping[str, int]] = {ATTENTION: 2}
    trainings: Mapping[str, int] = {ATTENTION: len(PART_ATTRIBUTES)}
    titles: Mapping[str, str] = {
        ATTENTION: "stage 1: attention maps",
        PRETRAIN: "stage 2: pre-training",
        FOLD: "stage 2",
    }

    def recogniser(self, method: Method[WslganRecipe], kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.wslgan.recognisers import WslganRecogniser

        return WslganRecogniser(method.recipe, kind, classes)

    def attribute_learner(self, method: Method[WslganRecipe], kind: str) -> AttributeLearner:
        from ferbench.methods.wslgan.recognisers import AttentionLearner

        return AttentionLearner(method.recipe)

    def attribute_image_count(self, data: AttributeSet) -> int:
        """The training images of both parts."""
        parts = (splits.attribute_split(data.protocol, data.faces, part, data.seed) for part in PART_ATTRIBUTES)
        return sum(len(split.train) for split in parts)

    def parents(self, kind: str, method: Method[WslganRecipe], protocol: Protocol) -> list[Parent]:
        """Attention maps for all networks that use them; pre-training for folds; for pre-training the pre-trainings of
        the presets that are its teachers or its start, with the hyperparameters of their file, without overrides."""
        if kind == ATTENTION:
            return []
        parents = []
        if method.recipe.architecture.needs_attention:
            parents.append(Parent(ATTENTION, ATTENTION, method, protocol.attributes))
        if kind == FOLD and protocol.pretrain:
            parents.append(Parent(PRETRAIN, PRETRAIN, method, protocol.pretrain))
        if kind == PRETRAIN:
            parents += self._pretraining_parents(method, protocol)
        return parents

    def _pretraining_parents(self, method: Method[WslganRecipe], protocol: Protocol) -> list[Parent]:
        stage = method.recipe.pretrain
        presets = {f"{TEACHER}{preset}": preset for preset in stage.teachers}
        presets |= {f"{START}{stage.start}": stage.start} if stage.start else {}
        methods = {role: resolve(method.name, preset, protocol.name) for role, preset in presets.items()}
        if stage.start:
            source = methods[f"{START}{stage.start}"].recipe.architecture
            if not method.recipe.architecture.takes_weights_of(source):
                raise UsageError(
                    f"pretrain.start: the network of {method.name} at preset {stage.start} has other "
                    f"shapes than that at {method.preset} here"
                )
        return [Parent(role, PRETRAIN, parent, protocol.pretrain) for role, parent in methods.items()]

    def identity(self, kind: str, method: Method[WslganRecipe], protocol: Protocol) -> dict[str, Any]:
        recipe, interpretation = method.recipe, method.recipe.interpretation.model_dump()
        stage = recipe.stage(kind, bool(protocol.pretrain))
        if kind == ATTENTION:
            return {
                "generator": recipe.architecture.generator(),
                "readings": {name: interpretation[name] for name in ("normalise", "border")},
                "stage": stage.identity(),
            }
        assert isinstance(stage, PairStage)
        return {
            "architecture": recipe.architecture.identity(),
            "losses": asdict(recipe.losses_of(stage)),
            "readings": interpretation,
            "stage": stage.identity(),
        }

    def epochs(self, kind: str, method: Method[WslganRecipe], protocol: Protocol) -> int:
        return method.recipe.stage(kind, bool(protocol.pretrain)).epochs

    def owner(self, kind: str, method: Method[WslganRecipe]) -> tuple[str, str]:
        """All methods share one AMG; a preset may use the AMG of another preset."""
        if kind == ATTENTION:
            return DEFAULT_METHOD, method.recipe.amg or method.preset
        return method.name, method.preset

    def check_parent(self, role: str, record: Record, method: Method[WslganRecipe], protocol: Protocol) -> None:
        """An AMG or a pre-trained network can be used if it has the shapes that the method needs."""
        architecture = method.recipe.architecture
        field = "generator" if role == ATTENTION else "architecture"
        expected = plain(architecture.generator() if role == ATTENTION else architecture.identity())
        actual = record.identity.recipe.get(field, {})
        differ = [f"{name} {actual.get(name)}, not {v}" for name, v in expected.items() if v != actual.get(name)]
        if differ:
            raise UsageError(
                f"the {'AMG' if role == ATTENTION else 'network'} of run {record.key} has another shape "
                f"than {method.title} has with preset {method.preset}: {', '.join(differ)}"
            )

    def estimate(self, device: Device) -> Callable[[Task, int], float]:
        from ferbench.methods.wslgan.cost import DurationEstimate

        return DurationEstimate(device)

    def module(self, record: Record, store: Store) -> Deployable:
        from ferbench.methods.wslgan.deployed import deployed

        return deployed(record, store)

    def timed(self, method: Method[WslganRecipe], classes: int, seed: int) -> TimedMethod:
        from ferbench.methods.wslgan.timing import TimedNetworks

        return TimedNetworks(method.recipe, classes, seed)

    def maps(self, record: Record, store: Store, images: np.ndarray) -> tuple[str, dict[str, np.ndarray]]:
        from ferbench.methods.wslgan.deployed import maps

        return maps(record, store, images)

    def describe(self, method: Method[WslganRecipe], protocol: Protocol) -> list[tuple[str, dict[str, Any]]]:
        from ferbench.methods.wslgan.cost import describe

        return describe(method.recipe.architecture, len(protocol.classes))


FAMILY = WSLGANFamily()
