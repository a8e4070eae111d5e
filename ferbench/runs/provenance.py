"""What a training has learned from: digests and signatures of its source pictures, and its people. Whether a test set
was held out is a fact about these sets, whatever they are called and however faces were cut out of the pictures.

Where only names are known, families of datasets (``protocols/datasets/families.toml``) say which of them stand for the
same images or people."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors
import safetensors.numpy

from ferbench.data.content import near_copies, tolerance
from ferbench.data.faces import Faces, person
from ferbench.errors import DataError
from ferbench.files import shipped
from ferbench.runs.facts import HeldOut
from ferbench.schema import Card, Schema, parse_json, read_toml, validated

_FACTS = "learned_from"  # the entry of the file's metadata


@dataclass(frozen=True)
class Pictures:
    """Source pictures of a prepared dataset.

    dataset : its name. family : of datasets, "" where unknown. bits : in how many the signatures of copies may differ.
    content : digests uint64 [N]. signatures : uint8 [N,32]. subjects : text; of each picture, or each subject once
    where they were read from a file; "" for an unknown one.
    """

    dataset: str
    family: str
    bits: int
    content: np.ndarray
    signatures: np.ndarray
    subjects: np.ndarray

    def __len__(self) -> int:
        return len(self.content)

    def __str__(self) -> str:
        return f"{len(self):,} pictures of {self.dataset}"


def pictures(faces: Faces, rows: np.ndarray) -> Pictures | None:
    """Return the source pictures of rows of a prepared dataset, in order; None where it has no digests."""
    digests = faces.samples["content"].iloc[rows]
    if faces.signatures is None or (digests == "").any():
        return None
    family = of_set(faces.card)
    return Pictures(
        faces.name,
        family.name if family else "",
        tolerance(faces.card),
        np.array([int(digest, 16) for digest in digests], dtype=np.uint64),
        np.asarray(faces.signatures[rows]),
        faces.samples["subject"].iloc[rows].to_numpy(dtype=str),
    )


def pack(learned: Pictures) -> bytes:
    """Return the bytes of a file of what was learned from. Equal sets of pictures give equal bytes."""
    content, first = np.unique(learned.content, return_index=True)
    facts = {"dataset": learned.dataset, "family": learned.family, "bits": learned.bits}
    facts["subjects"] = np.unique(learned.subjects).tolist()
    return safetensors.numpy.save(
        {"content": content, "signatures": np.ascontiguousarray(learned.signatures[first])},
        {_FACTS: json.dumps(facts, sort_keys=True)},
    )


def unpack(path: Path) -> Pictures:
    """Read a file that :func:`pack` made. Raises DataError when it is something else."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            facts = parse_json((file.metadata() or {})[_FACTS], path)
            content, signatures = file.get_tensor("content"), file.get_tensor("signatures")
        if content.dtype != np.uint64 or signatures.dtype != np.uint8 or signatures.shape != (len(content), 32):
            raise ValueError(f"content {content.shape}, signatures {signatures.shape}")
        subjects = np.array(facts["subjects"], dtype=str).reshape(-1)
        return Pictures(str(facts["dataset"]), str(facts["family"]), int(facts["bits"]), content, signatures, subjects)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): delete the run's folder and train again") from None


def copies(tested: Pictures, learned: Pictures) -> np.ndarray:
    """Say for each tested picture whether it, or a near copy of it, was learned from: bool [N]."""
    copied = np.isin(tested.content, learned.content)
    rest = np.flatnonzero(~copied)
    copied[rest] = near_copies(tested.signatures[rest], learned.signatures, max(tested.bits, learned.bits))
    return copied


def held_out(tested: Pictures, learned: Sequence[Pictures]) -> tuple[HeldOut, np.ndarray]:
    """Compare tested pictures with all that a model and those before it have learned from.

    Returns what is to be said of it, and for each tested picture whether it or its person was learned from: bool [N].
    """
    people, why = _people(tested.subjects), ""
    seen = np.zeros(len(tested), dtype=bool)
    for source in learned:
        seen |= copies(tested, source)
        learned_people = _people(source.subjects)
        common = np.isin(people, learned_people[learned_people != ""])
        if tested.family == source.family and (tested.family or tested.dataset == source.dataset):
            seen |= common
            family = dataset_family(tested.family)
            if family and family.subjects and ("" in people or "" in learned_people):
                why = f"not all people in {tested.dataset} and {source.dataset}, both of {family.title}, are known"
        elif common.any() and not (tested.family and source.family):
            why = (
                f"{len(np.unique(people[common]))} people in {tested.dataset} and {source.dataset} have the same "
                "names, and it is not known whether they are the same"
            )
    seen |= (people != "") & np.isin(people, people[seen])  # of whom one picture was learned from
    if seen.any():
        count = len(set(people[seen]) - {""})
        return HeldOut(status="no", images=int(seen.sum()), tested=len(seen), people=count), seen
    return HeldOut(status="unknown" if why else "yes", tested=len(seen), why=why), seen


def _people(subjects: np.ndarray) -> np.ndarray:
    """Return the people text [N] of subjects, whatever their spelling."""
    return np.array([person(subject) for subject in subjects], dtype=str)


_SEPARATORS = re.compile(r"[,;/]|\s\+\s|\band\b")


class Family(Schema):
    """Datasets with images or people in common. subjects : the people in all images are known."""

    name: str
    title: str
    aliases: tuple[str, ...]
    subjects: bool = False


class _File(Schema):
    family: tuple[Family, ...]


def dataset_family(name: str) -> Family | None:
    """Return the family of a dataset or protocol by any of its names, with or without ``@version``; None if unknown."""
    return _aliases().get(_normalised(name))


def of_set(card: Card) -> Family | None:
    """Return the family of a prepared dataset: by the reader that read it, else by its own name."""
    drawn = card.layout == "drawn"
    return (None if drawn else dataset_family(card.dataset)) or dataset_family(card.name)


def parts(names: Iterable[str]) -> list[str]:
    """Return the single names in lists of names such as ``"ckplus, fer2013"``."""
    single: list[str] = []
    for name in names:
        single += [name] if dataset_family(name) else [part.strip() for part in _SEPARATORS.split(name) if part.strip()]
    return single


def by_names(trained_on: Iterable[str], tested: Iterable[str], of: Family | None, authors: bool = True) -> HeldOut:
    """Say whether a dataset was held out from what names tell alone.

    trained_on : what was learned from. tested : all names of the tested dataset. of : its family. authors : the names
    are the word of a model's authors, not of ferbench's own records.
    """
    names = parts(trained_on)
    by: Literal["authors", "names"] = "authors" if authors else "names"
    tested_names = {_normalised(name) for name in tested}
    families = {name: dataset_family(name) for name in names}
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
