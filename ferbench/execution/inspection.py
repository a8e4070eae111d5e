"""The facts that ``ferbench show`` prints: all methods, or the sizes, shapes and recipe of one method."""

from typing import Any

from ferbench.files import shipped
from ferbench.methods import recipes
from ferbench.methods.recipes import Method
from ferbench.protocol import protocol as protocols
from ferbench.protocol.protocol import Protocol
from ferbench.schema import read_json

Sections = list[tuple[str, dict[str, Any] | list[dict[str, Any]]]]
SIZES = shipped("baselines") / "sizes.json"  # of shipped methods, so that showing one builds no network


def list_methods() -> Sections:
    """Return a table of all methods."""
    rows = []
    for name in recipes.names():
        method = recipes.resolve(name, "", "")
        needs = method.family.needs(method)
        rows.append(
            {
                "method": name,
                "title": method.title,
                "family": method.family_name,
                "presets": ", ".join(recipes.presets(name)),
                "needs": ", ".join(sorted(needs)) or "images",
            }
        )
    return [("methods", rows)]


def describe(name: str, preset: str, dataset: str, overrides: tuple[str, ...]) -> Sections:
    """Return the facts of a method: its family, what differs from the original, sizes, shapes, and its recipe."""
    protocol = protocols.load(dataset)
    method = recipes.resolve(name, preset, protocol.name, overrides)
    facts: dict[str, Any] = {
        "family": method.family_name,
        "needs": ", ".join(sorted(method.family.needs(method))) or "images",
    }
    facts |= {"described in": method.paper} if method.paper else {}
    facts |= {"row of the paper's tables": method.published} if method.published else {}
    for number, sentence in enumerate(method.differs, start=1):
        facts[f"differs from the original ({number})"] = sentence
    recipe = method.recipe.model_dump(exclude_none=True)
    fields = {part: value for part, value in recipe.items() if not isinstance(value, dict) and value != ""}
    sizes, *details = _sizes(method, protocol, bool(overrides)) or [("", {})]
    return [
        (f"{method.title}, preset {method.preset}, for {protocol.identifier}", {**facts, **sizes[1]}),
        *details,
        *([("recipe", fields)] if fields else []),
        *((f"recipe: {part}", table) for part, table in recipe.items() if isinstance(table, dict)),
    ]


def size_name(method: str, preset: str, classes: int) -> str:
    """Return the key of a method's sizes in the file of sizes."""
    return f"{method}/{preset}/{classes}"


def _sizes(method: Method, protocol: Protocol, changed: bool) -> list[tuple[str, dict[str, Any]]]:
    """Return what a family says of a method's sizes: stored, or from its network where its recipe is ``changed``."""
    name = size_name(method.name, method.preset, len(protocol.classes))
    stored = None if changed or method.folder else read_json(SIZES).get(name)
    return stored or method.family.describe(method, protocol)
