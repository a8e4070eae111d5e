"""Methods: ``baselines/*.toml`` resolved into one recipe. A method has named presets; an ablation extends another
method and changes some hyperparameters. A user's method is such a file in any folder. A family is
imported at its first use."""

import sys
import tomllib
from collections.abc import Iterable
from copy import deepcopy
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, get_args

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator

from ferbench import DEFAULT_METHOD
from ferbench.errors import DataError, UsageError
from ferbench.files import sha256_of, shipped
from ferbench.methods import modules
from ferbench.methods.interface import Family, HasNetwork, R
from ferbench.runs.record import TABLES, Record
from ferbench.schema import Schema, read_toml, validated
from ferbench.text import suggestion

if TYPE_CHECKING:
    from ferbench.runs.store import Store
    from ferbench.training.networks import Deployable


_SOURCES: dict[Family, str] = {}  # hashes of the code of families outside of this package


def is_module(name: str) -> bool:
    """Whether a text is the name of a module, not a path or anything else."""
    return len(name) <= 100 and all(part.isidentifier() for part in name.split("."))


def load_family(name: str, folder: Path | None = None) -> Family:
    """Return the family ``name``: a module with a ``FAMILY`` in ``folder``, any other module if the name has a dot, or
    a family of this package.

    folder : of the TOML file with the name. Raises DataError with the reason if the family cannot be loaded.
    """
    if not is_module(name):
        raise DataError(f"the family {name[:50]!r} cannot be loaded: its name is that of a module")
    in_folder = modules.holds(folder, name)
    if in_folder and folder:
        modules.activate(folder)  # for later imports of the family
    module = name if in_folder or "." in name else f"ferbench.methods.{name}"
    return _family(module, folder if in_folder else None)


@cache
def _family(name: str, folder: Path | None) -> Family:
    try:
        module = modules.load(name, (folder,))
    except DataError as error:
        raise DataError(
            f"the family {name.removeprefix('ferbench.methods.')!r} cannot be loaded ({error}): it is a module with a "
            "FAMILY, beside the method's TOML file or installed"
        ) from None
    family = getattr(module, "FAMILY", None)
    if not isinstance(family, Family):
        raise DataError(f"the module {name!r} has no FAMILY of the class ferbench.methods.interface.Family")
    source = sys.modules[type(family).__module__]
    if not source.__name__.startswith("ferbench.") and source.__file__:
        code, imported = sha256_of(Path(source.__file__).read_bytes())[:16], modules.digest(module)
        _SOURCES[family] = sha256_of((code + imported).encode())[:16] if imported else code
    return family


def source_hash(family: Family) -> str:
    """The first 16 digits of the SHA-256 of the code of a family outside of this package; else an empty text.

    It is part of the identity of runs, because users do not raise :attr:`Family.revision` at each change.
    """
    return _SOURCES.get(family, "")


PAPER = "paper"  # the recipe of the paper, and the preset of its scale
CARD = "foreign"  # the family of a model card, a TOML file with a table [model]
CARD_PRESET = "own"  # the only preset of a card
_HEAD = ("name", "title", "family", "published", "paper", "differs")


class Method(Schema, Generic[R]):
    """A method with a preset, ready to train.

    title : for tables. published : the row of the paper's tables that it reproduces, if any.
    paper : reference of the method. differs : the differences from it with their reasons, a sentence each.
    folder : of its file, None for a shipped one. recipe : of the type that its family defines.
    """

    name: str
    title: str
    family_name: str = Field(alias="family")
    published: str = ""
    paper: str = ""
    differs: tuple[str, ...] = ()
    preset: str
    folder: Path | None = None
    recipe: SerializeAsAny[R]

    @field_validator("recipe", mode="before")
    @classmethod
    def _typed_by_its_family(cls, recipe: Any, info: ValidationInfo) -> Any:
        """Convert a recipe from JSON to the type that its family defines."""
        if not isinstance(recipe, dict):
            return recipe
        return load_family(info.data["family_name"], info.data["folder"]).recipe.model_validate(recipe)

    @property
    def family(self) -> Family[R]:
        """The family that trains it."""
        return load_family(self.family_name, self.folder)


def names() -> list[str]:
    """Return the names of all shipped methods, the default one first."""
    return sorted(
        (path.stem for path in shipped("baselines").glob("*.toml")), key=lambda name: (name != DEFAULT_METHOD, name)
    )


def variants(name: str) -> list[str]:
    """Return a method and those that extend it: its ablations."""
    extends = {method: read_toml(shipped("baselines") / f"{method}.toml").get("extends") for method in names()}
    return [name, *(method for method, base in extends.items() if base == name)]


def presets(name: str) -> list[str]:
    """Return the names of a method's presets, in the order of its file."""
    return list(_read(name)[0].get("preset", {}))


def resolve(name: str, preset: str, dataset: str, overrides: tuple[str, ...] = (), recipe: str = PAPER) -> Method:
    """Return method ``name`` at ``preset`` for ``dataset``: the method, changed by the preset (after those that it
    extends), by the dataset (such as λ3 of WS-LGAN), by the recipe, then by ``overrides``.

    name : of a shipped method, a path ending in ``.toml``, or the folder of a timm network.
    preset : empty for the method's first one.
    recipe : "paper", or one that goes beyond it ("modern") and reproduces no published row.
    overrides : texts ``section.field=value`` such as ``finetune.epochs=20``, applied last.
    Raises UsageError for an unknown method, preset, recipe or override.
    """
    content, folder = _read(name)
    family, presets = content.get("family"), content.pop("preset", {})
    if not isinstance(family, str):
        raise DataError(f'{name} names no family: a method has a line `family = "..."`, a card has a table [model]')
    preset = preset or next(iter(presets), "")
    if not presets:
        raise DataError(f"{name} has no preset: add one, such as the empty table [preset.{CARD_PRESET}]")
    if preset not in presets:
        raise UsageError(f"{name} has no preset {preset!r}{suggestion(preset, presets)}")
    chain = [preset]
    while base := presets[chain[0]].get("extends"):
        if base in chain or base not in presets:
            raise UsageError(f"{name}: preset {chain[0]} extends {base!r}, which is no other preset of it")
        chain.insert(0, base)
    for link in chain:
        _merge(content, {name: table for name, table in presets[link].items() if name != "extends"})
    _merge(content, content.pop("dataset", {}).get(dataset, {}))
    recipes = content.pop("recipe", {})
    if recipe not in (PAPER, *recipes):
        raise UsageError(f"unknown recipe {recipe!r}{suggestion(recipe, (PAPER, *recipes))}")
    _merge(content, recipes.get(recipe, {}))
    schema = load_family(family, folder).recipe
    for override in overrides:
        _override(content, override, schema)
    head = {key: content.pop(key) for key in _HEAD if key in content}
    if recipe != PAPER:
        head |= {"title": f"{head['title']}, {recipe} recipe", "published": ""}
    origin = f"method {name}, preset {preset}"
    resolved = validated(schema, content, origin)
    return validated(Method, {**head, "preset": preset, "folder": folder, "recipe": resolved}, origin)


def family_of(record: Record) -> Family:
    """Return the family of a finished run's method."""
    method = record.facts.get("method")
    if method is None:  # an older run, always of a shipped method
        return load_family(_read(record.identity.method)[0]["family"])
    return load_family(method["family"], Path(method["folder"]) if method.get("folder") else None)


def network_of(record: Record, store: "Store") -> "Deployable":
    """Return the network of a finished run as one frozen module. store : of the run.

    Raises UsageError if the run has no network to deploy, DataError if its weights are damaged.
    """
    family = family_of(record)
    if isinstance(family, HasNetwork):
        return family.module(record, store)
    raise UsageError(f"run {record.key} is of {record.identity.method}, which has no network to deploy")


def _read(name: str, before: tuple[str, ...] = ()) -> tuple[dict[str, Any], Path | None]:
    """The content of a method's file, merged into that of the method it extends, and its folder, None for a shipped
    one. before : the methods that extend it.
    """
    if name in before:
        raise UsageError(f"{name} extends itself, by way of {', '.join(before)}")
    if name not in names() and (Path(name) / "config.json").is_file():
        from ferbench.methods.foreign.cards import template

        return _as_method(tomllib.loads(template(name)), name), Path(name).resolve()
    folder = Path(name).resolve().parent if name.endswith(".toml") else None
    path = Path(name) if folder else shipped("baselines") / f"{name}.toml"
    if folder and not path.exists():
        raise DataError(
            f"{name} does not exist: name the TOML file of a method or the card of a model, which "
            f"`ferbench card MODEL > {name}` writes"
        )
    if not folder and name not in names():
        raise UsageError(f"unknown method {name!r}{suggestion(name, names())}")
    content = _current(read_toml(path))
    if folder and "model" in content and "extends" not in content:
        content = _as_method(content, path.stem)
    base = content.pop("extends", None)
    return (content if base is None else _merge(_read(base, (*before, name))[0], content)), folder


def _as_method(card: dict[str, Any], name: str) -> dict[str, Any]:
    """The content of a card with what every method has. name : if the card has none."""
    content = {"family": CARD, "name": name, **card}
    return {"title": content["name"], "preset": {CARD_PRESET: {}}, **content}


def _current(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a file with the current names of tables; former names are accepted for one version."""
    return {
        TABLES.get(name, name): _current(value) if isinstance(value, dict) else value for name, value in content.items()
    }


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Change ``base`` in place, table by table, and return it."""
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = deepcopy(value)
    return base


def _override(content: dict[str, Any], text: str, schema: type[Schema]) -> None:
    """Set the field of a table that ``text`` names; the field is in the file, or has a default in the schema."""
    path, sign, value = text.partition("=")
    section, _, field = path.strip().partition(".")
    section = TABLES.get(section, section)
    table = content.get(section)
    tables = {name: {*table, *_fields(schema, name)} for name, table in content.items() if isinstance(table, dict)}
    if not sign or not isinstance(table, dict) or field not in tables[section]:
        known = [f"{name}.{field}" for name, fields in tables.items() for field in sorted(fields)]
        near = get_close_matches(path.strip(), known, n=1)
        hint = f"did you mean {near[0]}?" if near else "`ferbench show METHOD` lists them all"
        raise UsageError(f"--set takes section.field=value with a field of the recipe, not {text!r}; {hint}")
    try:
        table[field] = tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        table[field] = value.strip()  # a text without quotes, as in interpretation.pairing=balanced


def _fields(schema: type[Schema], table: str) -> Iterable[str]:
    """The fields of a table of a recipe; of a table of several kinds, those of all, which its schema then checks."""
    kind = schema.model_fields[table].annotation if table in schema.model_fields else None
    kinds = [one for one in (kind, *get_args(kind)) if isinstance(one, type) and issubclass(one, Schema)]
    return {field for one in kinds for field in one.model_fields}
