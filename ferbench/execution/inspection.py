"""What ``ferbench show`` shows: methods, and one method's sizes, shapes and resolved recipe."""

from typing import Any

from ferbench.methods import recipes
from ferbench.protocol import protocol as protocols

Sections = list[tuple[str, dict[str, Any] | list[dict[str, Any]]]]


def list_methods() -> Sections:
    """List all methods with what each is."""
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
    """Describe a method: what it is and what differs from the original, sizes, shapes, and its recipe."""
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
    plain = {part: value for part, value in recipe.items() if not isinstance(value, dict) and value != ""}
    first, *more = method.family.describe(method, protocol) or [("", {})]
    return [
        (f"{method.title}, preset {method.preset}, for {protocol.identifier}", {**facts, **first[1]}),
        *more,
        *([("recipe", plain)] if plain else []),
        *((f"recipe: {part}", fields) for part, fields in recipe.items() if isinstance(fields, dict)),
    ]
