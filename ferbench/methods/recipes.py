"""Methods: ``baselines/*.toml`` resolved into one recipe. A method has named presets; an ablation
extends another method and changes arguments of it. A method of one's own is such a file anywhere."""

import tomllib
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator

from ferbench import DEFAULT_METHOD
from ferbench.errors import UsageError
from ferbench.files import shipped
from ferbench.methods import registry
from ferbench.methods.interface import Family
from ferbench.runs.record import Record
from ferbench.schema import Schema, read_toml, validated

PAPER = "paper"  # the recipe that is the paper's method, and the preset of its own scale
_HEAD = ("name", "title", "family", "published", "paper", "differs")


class Method(Schema):
    """A method with a preset, ready to train.

    published : the row of the paper's tables that it reproduces; empty where none was printed.
    paper : where the method is described. differs : what is not as there, and why, a sentence each.
    folder : of its file where that is not shipped.
    """

    name: str
    title: str  # as printed in tables
    family_name: str = Field(alias="family")
    published: str = ""
    paper: str = ""
    differs: tuple[str, ...] = ()
    preset: str
    folder: Path | None = None
    recipe: SerializeAsAny[Any]

    @field_validator("recipe", mode="before")
    @classmethod
    def _typed_by_its_family(cls, recipe: Any, info: ValidationInfo) -> Any:
        """Make a recipe that was read from JSON one of the type that its family has."""
        if not isinstance(recipe, dict):
            return recipe
        return registry.family(info.data["family_name"], info.data["folder"]).recipe.model_validate(recipe)

    @property
    def family(self) -> Family:
        """The family that trains it."""
        return registry.family(self.family_name, self.folder)


def names() -> list[str]:
    """Return the names of all methods that are shipped, the default one first."""
    found = sorted(path.stem for path in shipped("baselines").glob("*.toml"))
    return sorted(found, key=lambda name: (name != DEFAULT_METHOD, name))


def variants(name: str) -> list[str]:
    """Return a method and those that extend it: its ablations."""
    extending = {other: read_toml(shipped("baselines") / f"{other}.toml").get("extends") for other in names()}
    return [name, *(other for other, base in extending.items() if base == name)]


def presets(name: str) -> list[str]:
    """Return the names of a method's presets, in the order of its file."""
    return list(_read(name)[0].get("preset", {}))


def resolve(name: str, preset: str, dataset: str, overrides: tuple[str, ...] = (), recipe: str = PAPER) -> Method:
    """Return method ``name`` at ``preset`` for ``dataset``: the method, changed by the preset (after those that it
    extends), by the dataset (λ3 of WS-LGAN is one such change), by the recipe, then by ``overrides``.

    name : of a shipped method, or a path ending in ``.toml``.
    preset : the method's first one where it is empty.
    recipe : "paper", or one that goes beyond it ("modern"): such a method reproduces no published row.
    overrides : ``section.field=value`` texts such as ``finetune.epochs=20``, the last word on any field.
    Raises UsageError for an unknown method, preset, recipe or override.
    """
    content, folder = _read(name)
    presets = content.pop("preset", {})
    preset = preset or next(iter(presets), "")
    if preset not in presets:
        raise UsageError(f"{name} has no preset {preset!r}; it has {', '.join(presets)}")
    chain = [preset]
    while base := presets[chain[0]].get("extends"):
        if base in chain or base not in presets:
            raise UsageError(f"{name}: preset {chain[0]} extends {base!r}, which is no other preset of it")
        chain.insert(0, base)
    for one in chain:
        _merge(content, {name: table for name, table in presets[one].items() if name != "extends"})
    _merge(content, content.pop("dataset", {}).get(dataset, {}))
    recipes = content.pop("recipe", {})
    if recipe not in (PAPER, *recipes):
        raise UsageError(f"unknown recipe {recipe!r}: it is {', '.join((PAPER, *recipes))}")
    _merge(content, recipes.get(recipe, {}))
    for override in overrides:
        _override(content, override)
    head = {key: content.pop(key) for key in _HEAD if key in content}
    if recipe != PAPER:
        head |= {"title": f"{head['title']}, {recipe} recipe", "published": ""}
    origin = f"method {name}, preset {preset}"
    schema = registry.family(head.get("family", ""), folder).recipe
    made = validated(schema, content, origin)
    return validated(Method, {**head, "preset": preset, "folder": folder, "recipe": made}, origin)


def family_of(record: Record) -> Family:
    """Return the family of a finished run's method."""
    told = record.facts.get("method")
    if told is None:  # a run of before methods were told in full: its method is shipped
        return registry.family(_read(record.identity.method)[0]["family"])
    return registry.family(told["family"], Path(told["folder"]) if told.get("folder") else None)


def _read(name: str, before: tuple[str, ...] = ()) -> tuple[dict[str, Any], Path | None]:
    """A method's file, merged into that of the one it extends, and its folder where it is not shipped.

    before : those that extend it.
    """
    if name in before:
        raise UsageError(f"{name} extends itself, by way of {', '.join(before)}")
    folder = Path(name).resolve().parent if name.endswith(".toml") else None
    path = Path(name) if folder else shipped("baselines") / f"{name}.toml"
    if not path.is_file():
        near = get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"unknown method {name!r}{hint} There are: {', '.join(names())}")
    content = read_toml(path)
    base = content.pop("extends", None)
    return (content if base is None else _merge(_read(base, (*before, name))[0], content)), folder


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Change ``base`` in place, table by table, and return it."""
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = deepcopy(value)
    return base


def _override(content: dict[str, Any], text: str) -> None:
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
