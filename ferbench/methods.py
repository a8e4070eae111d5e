"""Methods: ``baselines/*.toml`` resolved into one recipe. A method has named presets; an ablation
extends another method and changes arguments of it."""

from copy import deepcopy
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, Literal, Self, get_args

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ferbench.errors import UsageError
from ferbench.files import shipped
from ferbench.models.settings import Architecture, LossWeights
from ferbench.schema import Schema, read_toml, validated

Preset = Literal["paper", "full", "light", "wide", "tiny"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
PAPER = "paper"  # the recipe that is the paper's method


class Readings(Schema):
    """How the paper's silent or ambiguous places are read; each is explained in ``baselines/wslgan.toml``."""

    batch_of: Literal["pairs", "images"]
    pairing: Literal["permutation", "balanced", "all"]
    streams: Literal["split", "joint"]
    normalise: Literal["train", "half", "image"]
    border: Literal["edge", "zero"]


class Stage(Schema):
    """One training: SGD with a step schedule. ``drops`` are fractions of the epochs where lr is × 0.1."""

    epochs: PositiveInt
    lr: PositiveFloat
    drops: tuple[float, ...]
    batch: PositiveInt
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    augment: Literal["expand", "sample", "none"]
    # Beyond the paper, each off by itself, as is whatever else has a default here.
    anneal: Literal["drops", "cosine"] = "drops"  # cosine: Loshchilov & Hutter 2017, without restarts
    ema: float = Field(0.0, ge=0)  # epochs that a moving average of the weights, tested in their place, looks back on

    def identity(self) -> dict[str, Any]:
        """The fields that identify a training: what is beyond the paper only where it is on."""
        off = {name for name, field in type(self).model_fields.items() if getattr(self, name) == field.default}
        return self.model_dump(exclude=off)


class PairStage(Stage):
    """Stage 2. ``contrastive``: a common factor of λ1, λ2 and λ3 in this training, 1 in the paper."""

    contrastive: float = Field(ge=0)
    smoothing: float = Field(0.0, ge=0, lt=1)  # of labels: Szegedy et al. 2016, section 7
    erase: float = Field(0.0, ge=0, le=1)  # share of images of which a rectangle is erased (``training.augment``)
    jitter: float = Field(0.0, ge=0, lt=0.5)  # zoom and shift at most, in sides of the image (``training.augment``)
    flip: bool = False  # probabilities are the mean over the image and its mirror image

    def identity(self) -> dict[str, Any]:
        """Without the factor, which is told among the losses."""
        return {name: value for name, value in super().identity().items() if name != "contrastive"}


class TaughtStage(PairStage):
    """Pre-training. ``teachers``: presets of the same method whose pre-trained networks' mean probabilities of each
    training image make the share ``distil`` of the classifier's target (Hinton et al. 2015, at temperature 1).
    ``start``: a preset of the same method whose pre-trained network it goes on from, one of the same shapes that saw
    its images at another resolution (from small to large: Tan & Le 2021, section 4)."""

    start: Preset | Literal[""] = ""
    teachers: tuple[Preset, ...] = ()
    distil: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if bool(self.teachers) != bool(self.distil):
            raise ValueError("teachers and distil go together: name presets and the share of what they say, or neither")
        return self

    def alone(self) -> Self:
        """The same without other networks."""
        return self.model_copy(update={"start": "", "teachers": (), "distil": 0.0})


class TargetStage(PairStage):
    """Fine-tuning. ``classifier``: "new" begins with random weights for all classes, "shared" takes over the weights of
    those that the pre-training set has as well. Random ones send large gradients through what was learned before
    (Kumar et al. 2022, section 3)."""

    classifier: Literal["new", "shared"] = "new"


class PartStage(Stage):
    """Stage 1. ``shuffle``: the share of images whose tiles change places (``training.augment.rearrange``)."""

    shuffle: float = Field(0.0, ge=0, le=1)


class Recipe(Schema):
    """Everything that decides a training, resolved: method × preset × dataset × overrides."""

    architecture: Architecture
    losses: LossWeights
    readings: Readings
    attention: PartStage
    pretrain: TaughtStage
    finetune: TargetStage

    def losses_of(self, stage: PairStage) -> LossWeights:
        """The weights of the losses in one training of stage 2."""
        return replace(self.losses, contrastive=stage.contrastive)


class Method(Schema):
    """A method with a preset, ready to train."""

    name: str
    title: str  # as printed in tables
    published: str  # the row of the paper's tables that it reproduces; empty where none was printed
    preset: str
    attention_preset: str  # whose AMG it takes
    recipe: Recipe


def names() -> list[str]:
    """Return the names of all methods, the full one first."""
    found = sorted(path.stem for path in shipped("baselines").glob("*.toml"))
    return sorted(found, key=lambda name: (name != "wslgan", name))


def resolve(name: str, preset: str, dataset: str, overrides: tuple[str, ...] = (), recipe: str = PAPER) -> Method:
    """Return method ``name`` at ``preset`` for ``dataset``: the method, changed by the preset (after those that it
    extends), by the dataset (λ3 is one such change), by the recipe, then by ``overrides``.

    recipe : "paper", or one that goes beyond it ("modern"): such a method reproduces no published row.
    overrides : ``section.field=value`` texts such as ``finetune.epochs=20``, the last word on any field.
    Raises UsageError for an unknown method, preset, recipe or override.
    """
    content = _read(name)
    presets = content.pop("preset", {})
    if preset not in presets:
        raise UsageError(f"{name} has no preset {preset!r}; it has {', '.join(presets)}")
    chain = [preset]
    while base := presets[chain[0]].get("extends"):
        chain.insert(0, base)
    for one in chain:
        _merge(content, {name: table for name, table in presets[one].items() if name not in ("extends", "amg")})
    _merge(content, content.pop("dataset", {}).get(dataset, {}))
    recipes = content.pop("recipe", {})
    if recipe not in (PAPER, *recipes):
        raise UsageError(f"unknown recipe {recipe!r}: it is {', '.join((PAPER, *recipes))}")
    _merge(content, recipes.get(recipe, {}))
    for override in overrides:
        _override(content, override)
    head = {key: content.pop(key) for key in ("name", "title", "published")}
    if recipe != PAPER:
        head |= {"title": f"{head['title']}, {recipe} recipe", "published": ""}
    made = validated(Recipe, content, f"method {name}, preset {preset}")
    return Method(**head, preset=preset, attention_preset=presets[preset].get("amg", preset), recipe=made)


def _read(name: str) -> dict[str, Any]:
    path = shipped("baselines") / f"{name}.toml"
    if not path.is_file():
        near = get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"unknown method {name!r}{hint} There are: {', '.join(names())}")
    content = read_toml(path)
    base = content.pop("extends", None)
    return content if base is None else _merge(_read(base), content)


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Change ``base`` in place, table by table, and return it."""
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = deepcopy(value)
    return base


def _override(content: dict[str, Any], text: str) -> None:
    import tomllib

    path, sign, value = text.partition("=")
    section, _, field = path.strip().partition(".")
    table = content.get(section)
    if not sign or not isinstance(table, dict) or field not in table:
        known = [f"{s}.{f}" for s, fields in content.items() if isinstance(fields, dict) for f in fields]
        near = get_close_matches(path.strip(), known, n=1)
        hint = f"did you mean {near[0]}?" if near else "`ferbench show METHOD` lists them all"
        raise UsageError(f"--set takes section.field=value with a field of the recipe, not {text!r}; {hint}")
    try:
        table[field] = tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        table[field] = value.strip()  # a bare word is a text: readings.pairing=balanced
