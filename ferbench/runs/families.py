"""Families of datasets: names that stand for the same images or people, from ``protocols/datasets/families.toml``."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from typing import Literal

from ferbench.files import shipped
from ferbench.runs.facts import HeldOut
from ferbench.schema import Card, Schema, read_toml, validated

_SEPARATORS = re.compile(r"[,;/]|\s\+\s|\band\b")


class Family(Schema):
    """Datasets with images or people in common. subjects : the people in all images are known."""

    name: str
    title: str
    aliases: tuple[str, ...]
    subjects: bool = False


class _File(Schema):
    family: tuple[Family, ...]


def family(name: str) -> Family | None:
    """Return the family of a dataset or protocol by any of its names, with or without ``@version``; None if unknown."""
    return _aliases().get(_normalised(name))


def of_set(card: Card) -> Family | None:
    """Return the family of a prepared dataset: by the reader that read it, else by its own name."""
    drawn = card.layout == "drawn"
    return (None if drawn else family(card.dataset)) or family(card.name)


def parts(names: Iterable[str]) -> list[str]:
    """Return the single names in lists of names such as ``"ckplus, fer2013"``."""
    single: list[str] = []
    for name in names:
        single += [name] if family(name) else [part.strip() for part in _SEPARATORS.split(name) if part.strip()]
    return single


def by_names(trained_on: Iterable[str], tested: Iterable[str], of: Family | None, authors: bool = True) -> HeldOut:
    """Say whether a dataset was held out from what names tell alone.

    trained_on : what was learned from. tested : all names of the tested dataset. of : its family. authors : the names
    are the word of a model's authors, not of ferbench's own records.
    """
    names = parts(trained_on)
    by: Literal["authors", "names"] = "authors" if authors else "names"
    tested_names = {_normalised(name) for name in tested}
    families = {name: family(name) for name in names}
    if any(_normalised(name) in tested_names or (of and family == of) for name, family in families.items()):
        return HeldOut(status="no", by=by)
    if not names:
        return HeldOut(status="unknown", why="it is not stated what was learned from")
    if unknown := [name for name, family in families.items() if family is None]:
        return HeldOut(status="unknown", why=_unknown(unknown[0]))
    if of is None:
        return HeldOut(status="unknown", why="it is not known which dataset the tested images come from")
    return HeldOut(status="yes", by=by)


def _unknown(name: str) -> str:
    near = get_close_matches(_normalised(name), _aliases(), n=1)
    if near:
        return f"no dataset {name!r} is known: did you mean {_aliases()[near[0]].title}?"
    return f"no dataset {name!r} is known; known are {', '.join(dict.fromkeys(f.title for f in _aliases().values()))}"


@cache
def _aliases() -> dict[str, Family]:
    path = shipped("protocols") / "datasets" / "families.toml"
    families = validated(_File, read_toml(path), path).family
    return {_normalised(alias): family for family in families for alias in (family.name, *family.aliases)}


def _normalised(name: str) -> str:
    return re.sub(r"[\W_]", "", name.partition("@")[0].casefold().replace("+", "plus"))
