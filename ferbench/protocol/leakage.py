"""Leakage: the audit of a split (who is in training and test set, what is never tested, which pixels repeat), and folds
by image, which leak subjects and are made to measure how much this inflates accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ferbench.data import content
from ferbench.data.faces import Faces, person, repeated, spellings
from ferbench.errors import DataError, UsageError
from ferbench.files import sha256_of
from ferbench.labels import emotion, in_order
from ferbench.protocol import rules, splits
from ferbench.protocol.protocol import Protocol
from ferbench.protocol.rules import rare_classes
from ferbench.protocol.splits import Split, Splits, read_csv
from ferbench.runs.facts import Audit
from ferbench.runs.record import IMAGE_FOLDS
from ferbench.seeds import derive_seed

if TYPE_CHECKING:
    import pandas as pd


Severity = Literal["leak", "fault", "note"]

SHOWN = 5  # offenders named in a finding


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found. "leak" and "fault" fail it; a "note" does not.

    fold : empty where it concerns the whole file. count : how many offenders; examples : the first of them.
    """

    severity: Severity
    fold: str
    what: str
    count: int
    examples: tuple[str, ...]


def overlap(train: np.ndarray, test: np.ndarray, faces: Faces) -> Audit:
    """Return what the training and the test set of a fold have in common. train, test : rows of the prepared dataset.

    Near copies are unknown in a dataset that was prepared before signatures were recorded.
    """
    ids, subjects = faces.samples["id"].to_numpy(), faces.samples["subject"].to_numpy()
    same = np.isin(test, train)
    copies = np.isin(faces.pictures[test], faces.pictures[train]) & ~same
    near = None
    if faces.signatures is not None:
        others = test[~same & ~copies]
        near_copy = content.near_copies(
            faces.signatures[others], faces.signatures[train], content.tolerance(faces.card)
        )
        near = sorted(ids[others[near_copy]])
    return Audit(
        subjects=sorted((set(subjects[train]) & set(subjects[test])) - {""}),
        samples=sorted(ids[test[same]]),
        pictures=sorted(ids[test[copies]]),
        near_copies=near,
        tested=len(test),
        unknown=int((subjects[np.union1d(train, test)] == "").sum()),
    )


def of_folds(splits: Splits, faces: Faces) -> Audit:
    """Return the audit of all folds together."""
    return Audit.together([overlap(split.train, split.test, faces) for split in splits.folds])


def audit(path: Path, faces: Faces) -> list[Finding]:
    """Return what is wrong with the fold file ``path`` (columns id, fold and, if it has them, role, subject,
    label) on a prepared dataset, leaks first.

    A fold without training rows names its test set only: everything else in the file is trained on.
    """
    import pandas as pd

    frame = read_csv(path)
    samples = faces.samples.set_index("id")
    rows = pd.Series(np.arange(len(faces)), index=samples.index)
    there = frame["id"].isin(samples.index)
    unknown = frame.loc[~there, "id"].drop_duplicates()
    frame = frame[there]
    everyone = pd.Index(frame["id"].unique())
    used = samples.loc[everyone]
    findings = [
        _finding("fault", "", "ids that the prepared dataset does not have", unknown),
        *(_contradictions(frame, samples, column) for column in ("subject", "label") if column in frame),
    ]
    for fold, part in frame.groupby("fold", sort=True):
        test = pd.Index(part.loc[part["role"] == "test", "id"].unique())
        train = pd.Index(part.loc[part["role"] == "train", "id"].unique())
        train = train if len(train) else everyone.difference(test)
        findings += _parts(str(fold), rows.loc[train].to_numpy(), rows.loc[test].to_numpy(), faces)
    tested = frame.loc[frame["role"] == "test", "id"]
    if frame["fold"].nunique() > 1:  # cross-validation tests everything, one split tests a part
        findings.append(_finding("fault", "", "samples never tested", everyone.difference(tested)))
    times = tested.value_counts()
    findings += [
        _finding("fault", "", "samples tested more than once", times.index[times > 1].sort_values()),
        _finding("fault", "", "subjects under two spellings", list(spellings(used["subject"].unique()))),
        _finding(
            "fault",
            "",
            "names of sequences that several subjects have",
            repeated(zip(used["subject"], used["sequence"], strict=True)),
        ),
        _finding(
            "note",
            "",
            "samples of unknown subject: people may be in training and test set",
            used.index[used["subject"] == ""],
        ),
        _finding(
            "note",
            "",
            "samples of the prepared dataset that the file leaves out",
            samples.index.difference(everyone, sort=False),
        ),
    ]
    order = {"leak": 0, "fault": 1, "note": 2}
    return sorted(
        (finding for finding in findings if finding.count), key=lambda f: (order[f.severity], len(f.fold), f.fold)
    )


def _parts(fold: str, train: np.ndarray, test: np.ndarray, faces: Faces) -> list[Finding]:
    shared, labels = overlap(train, test, faces), faces.samples["label"].to_numpy()
    findings = [
        _finding("leak", fold, "subjects in training and test set", shared.subjects),
        _finding("leak", fold, "samples in training and test set", shared.samples),
        _finding("leak", fold, "test samples with the pixels of a training sample", shared.pictures),
        _finding("note", fold, "test samples that are near copies of a training sample", shared.near_copies or []),
    ]
    known = {*labels[train], *labels[test]} - {""}
    for name, part in (("training", train), ("test", test)):
        if not len(part):
            findings.append(Finding("fault", fold, f"the {name} set is empty", 1, ()))
        else:
            absent = in_order(known - set(labels[part]))
            findings.append(_finding("note", fold, f"classes absent from the {name} set", absent))
    return findings


def _contradictions(frame: pd.DataFrame, samples: pd.DataFrame, column: str) -> Finding:
    """Compare words with words: a file that numbers its subjects or classes has its own numbering."""
    given = frame.drop_duplicates("id").set_index("id")[column]
    known = samples.loc[given.index, column]
    if column == "subject":
        given, known = given.map(person), known.map(person)
    wrong = (given != "") & (known != "") & (given.str.isdigit() == known.str.isdigit())
    if column == "label":
        given = given.where(~wrong, given[wrong].map(_standard))
    wrong &= given != known
    return _finding("fault", "", f"{column}s that contradict the prepared dataset", given.index[wrong])


def _standard(word: str) -> str:
    """The usual name of an emotion; a word that is none stays as it is, and contradicts."""
    try:
        return emotion(word)
    except DataError:
        return word


def _finding(severity: Severity, fold: str, what: str, offenders: Sequence[str] | pd.Index | pd.Series) -> Finding:
    return Finding(severity, fold, what, len(offenders), tuple(str(name) for name in offenders[:SHOWN]))


def image_folds(protocol: Protocol, faces: Faces) -> Splits:
    """Return as many folds as ``protocol`` has, its images shuffled and stratified: the same for every seed.

    Images are drawn regardless of whose they are, so frames of one sequence are trained on and tested. Neither a
    protocol file nor ``--rule`` leads here, only ``ferbench ablate --leakage``; every run carries the mark in its
    protocol's name (``ckplus@1+image-folds``), and none is a result. That each image is tested exactly once, and not
    trained on in its own fold, is asserted here too.
    Raises UsageError where there are no folds or no class has an image for each.
    """
    from sklearn.model_selection import StratifiedKFold

    if protocol.folds is None:
        raise UsageError(f"{protocol.identifier} has an official split, not folds: there is no leakage to measure")
    rows, count = splits.select(protocol, faces), protocol.folds.count
    ordered = rows[np.argsort(faces.samples["id"].iloc[rows].to_numpy(), kind="stable")]  # not as they lie on disk
    labels = faces.samples["label"].iloc[ordered]
    if labels.value_counts().max() < count:
        raise UsageError(f"no class has {count} images: too few to stratify {count} folds")
    folder = StratifiedKFold(count, shuffle=True, random_state=derive_seed(0, "image folds") % 2**32)
    with rare_classes():
        folds = tuple(
            Split(f"{number + 1:02d}", np.sort(ordered[train]), np.sort(ordered[test]))
            for number, (train, test) in enumerate(folder.split(ordered, labels))
        )
    rules.check_images(folds)
    rules.check_tested_once(folds, faces, rows)
    return Splits(
        protocol.identifier + IMAGE_FOLDS,
        f"image, {count} folds by image: subjects are in training and test sets",
        folds,
        protocol.classes,
        faces.name,
        faces.fingerprint,
        sha256_of(splits.to_csv(folds, faces).encode()),
        tuple(splits.notes(protocol, faces, rows)),
    )
