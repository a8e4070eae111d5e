"""The facts that ``ferbench show`` prints: all methods, or the sizes, shapes and recipe of one method."""

from typing import Any

from ferbench.methods import recipes
from ferbench.protocol import protocol as protocols

Sections = list[tuple[str, dict[str, Any] | list[dict[str, Any]]]]


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
    first, *others = method.family.describe(method, protocol) or [("", {})]
    return [
        (f"{method.title}, preset {method.preset}, for {protocol.identifier}", {**facts, **first[1]}),
        *others,
        *([("recipe", fields)] if fields else []),
        *((f"recipe: {part}", table) for part, table in recipe.items() if isinstance(table, dict)),
    ]
