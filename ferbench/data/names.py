"""Names of people and sequences: one person has one spelling, and one sequence is of one person."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

import pandas as pd

from ferbench.errors import DataError


def person(subject: str) -> str:
    """Return what all usual spellings of a subject have in common: ``S010`` and ``s010``; ``10``, ``010`` and ``10.0``.

    Unicode forms, capitals, surrounding blanks, leading zeros of numbers and an empty fraction make no difference.
    """
    word = unicodedata.normalize("NFKC", subject).strip().casefold()
    word = re.sub(r"^(\d+)\.0+$", r"\1", word)
    return re.sub(r"(?<!\d)0+(?=\d)", "", word)


def spellings(subjects: Iterable[str]) -> dict[str, str]:
    """Return each spelling of the subjects that have several, with the one that stands for all: the first in order."""
    people: dict[str, list[str]] = {}
    for subject in sorted(set(subjects)):
        people.setdefault(person(subject), []).append(subject)
    several = [spelled for spelled in people.values() if len(spelled) > 1]
    return {subject: min(map(str.strip, spelled)) for spelled in several for subject in spelled}


def repeated(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return the names of sequences that several known subjects have, sorted. pairs : subject and sequence."""
    known = {(subject, sequence) for subject, sequence in pairs if subject and sequence}
    return sorted(name for name, count in Counter(sequence for _, sequence in known).items() if count > 1)


def check(name: str, samples: pd.DataFrame) -> None:
    """Raise DataError for a dataset that was prepared before these names were made unique, whose folds would leak."""
    if several := spellings(samples["subject"].unique()):
        first, second = list(several)[:2]
        raise DataError(f"the prepared dataset {name} has one subject as {first!r} and as {second!r}: prepare it again")
    if names := repeated(zip(samples["subject"], samples["sequence"], strict=True)):
        raise DataError(
            f"the prepared dataset {name} has sequences of several subjects under one name, such as {names[0]!r}: "
            "prepare it again"
        )
