"""What a training has learned from: digests and signatures of its source pictures, and its people. Whether a test set
was held out is a fact about these sets, whatever they are called and however faces were cut out of the pictures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from ferbench.data.content import near_copies, tolerance
from ferbench.data.faces import Faces
from ferbench.data.names import person
from ferbench.errors import DataError
from ferbench.runs import families
from ferbench.runs.facts import HeldOut
from ferbench.schema import parse_json

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
    family = families.of_set(faces.card)
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
            family = families.family(tested.family)
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
