"""Splits: a protocol and a prepared dataset become index arrays, disjoint by construction and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ferbench import tables
from ferbench.data.align import CENTRE
from ferbench.data.faces import Faces, check_names, unaligned
from ferbench.data.onet import ALIGNED
from ferbench.errors import DataError, UsageError
from ferbench.files import sha256_of
from ferbench.protocol import protocol as protocols
from ferbench.protocol import rules
from ferbench.protocol.protocol import AttributeProtocol, Protocol
from ferbench.protocol.rules import grouped_folds
from ferbench.seeds import derive_seed, generator

if TYPE_CHECKING:
    import pandas as pd


LAST = 3  # "the last three frames of each sequence are used for training and testing" (IV-A-2, IV-A-3)
COLUMNS = ("id", "subject", "label", "fold", "role")  # of a fold file


@dataclass(frozen=True)
class Split:
    """One fold: int64 indices into the prepared dataset, ascending."""

    fold: str
    train: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Splits:
    """All folds of a protocol on one prepared dataset.

    rule : in words. hash : SHA-256 of the fold file (:func:`to_csv`). notes : what a reader should know,
        such as classes of the protocol that the set has no image of.
    """

    protocol: str
    rule: str
    folds: tuple[Split, ...]
    classes: tuple[str, ...]
    dataset: str
    data_fingerprint: str
    hash: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PartSplit:
    """Stage 1 for one part: indices into the prepared dataset with 0/1 targets ("any attribute present")."""

    part: str
    train: np.ndarray
    train_target: np.ndarray
    validation: np.ndarray
    validation_target: np.ndarray
    notes: tuple[str, ...]


def select(protocol: Protocol, faces: Faces) -> np.ndarray:
    """Return the indices that take part: a class of the protocol, the last frames of each sequence; where whole
    sequences are tested, the last frame stands for each.

    Raises DataError when nothing is left, or one name stands for two people or two names for one (``data.names``).
    """
    samples = faces.samples
    check_names(faces.name, samples)
    chosen = samples["label"].isin(protocol.classes)
    last = 1 if protocol.level == "sequence" else LAST if protocol.frames == "last3" else 0
    if last:
        ranks = samples[chosen].groupby("sequence")["frame"].rank(ascending=False, method="first")
        known = samples["sequence"] != ""  # images of no sequence stand for themselves
        chosen &= ~known | (ranks.reindex(samples.index) <= last)
    rows = np.flatnonzero(chosen.to_numpy())
    if not len(rows):
        raise DataError(f"the prepared dataset {faces.name} has no image of the classes of {protocol.identifier}")
    return rows


def make(
    protocol: Protocol, faces: Faces, rule: str | None = None, seed: int = 0, folds_file: Path | None = None
) -> Splits:
    """Return the folds of ``protocol`` on ``faces``.

    rule : another fold rule than the protocol's. "step": subjects in ascending order, fold = place mod count,
        as in the CK+ list that Emotion-FAN published (Meng et al. 2019); "block": runs of neighbouring
        subjects with rounded bounds, as in FMPN (Chen et al. 2019); "random": grouped and stratified, drawn
        by ``seed``; "file": as a fold file says. By the first three, subjects who share a picture are in one fold.
    Raises DataError where training and test set share subjects or, of folds, pictures, where there are too few
    subjects, or the split is not there; UsageError for a rule that does not fit.
    """
    rows = select(protocol, faces)
    joined: list[str] = []
    if protocol.official is not None:
        if rule is not None or folds_file is not None:
            raise UsageError(f"{protocol.identifier} has an official split: --rule and --folds-file do not apply")
        folds: tuple[Split, ...] = (_official(protocol, faces, rows),)
        words = "official split"
        rules.check_subjects(folds, faces)
        parts = [part for part in protocol.official.model_dump().values() if part]
        rows = rows[faces.samples["split"].iloc[rows].isin(parts)]
    else:
        assert protocol.folds is not None
        _all_named(faces, rows)
        rule = rule or protocol.folds.rule
        if (rule == "file") != (folds_file is not None):
            raise UsageError("--rule file and --folds-file go together")
        if rule == "file":
            assert folds_file is not None
            folds = _from_file(folds_file, faces, rows)
            words = f"file {folds_file.name}, {len(folds)} folds"
        else:
            people, joined = rules.people(faces, rows)
            folds = _by_person(rules.fold_of_person(rule, protocol.folds.count, faces, rows, people, seed), rows)
            words = f"{rule}, {len(folds)} folds by subject" + (f", seed {seed}" if rule == "random" else "")
        rules.check_folds(folds, faces, rows)
    text = to_csv(folds, faces)
    return Splits(
        protocol.identifier,
        words,
        folds,
        protocol.classes,
        faces.name,
        faces.fingerprint,
        sha256_of(text.encode()),
        (*notes(protocol, faces, rows), *joined),
    )


def folds_depend_on_seed(protocol: Protocol, rule: str | None) -> bool:
    """Return whether the folds of :func:`make` depend on the seed, which only those of the rule "random" do."""
    return protocol.folds is not None and (rule or protocol.folds.rule) == "random"


def training_sets(protocol: Protocol, faces: Faces) -> tuple[np.ndarray, np.ndarray]:
    """Return the training and validation indices of an official split; its test set stays closed.

    Raises DataError when the set has no training set, UsageError for a protocol of folds.
    """
    if protocol.official is None:
        raise UsageError(f"{protocol.identifier} has folds; pre-training needs a protocol with an official split")
    rows = select(protocol, faces)
    split = faces.samples["split"].to_numpy()[rows]
    train = rows[split == protocol.official.train]
    if not len(train):
        raise DataError(f"the prepared dataset {faces.name} has no images of the split {protocol.official.train!r}")
    return train, rows[split == protocol.official.validation] if protocol.official.validation else rows[:0]


def tested(protocol: Protocol, faces: Faces) -> tuple[np.ndarray, str]:
    """Return what a protocol tests of a set of which nothing is to be learned, and a note where that is not the
    protocol's own test set: people need not be known, and a set that names no splits is tested whole.

    Raises DataError where the set names splits and none is the test set.
    """
    rows = select(protocol, faces)
    if protocol.official is None:
        return rows, "folds could not be made: all samples are tested at once, since nothing is learned"
    split = faces.samples["split"].to_numpy()[rows]
    if (split == "").all():
        return rows, "the set names no splits: all its samples are tested"
    chosen = rows[split == protocol.official.test] if protocol.official.test else rows[:0]
    if not len(chosen):
        raise DataError(_without(protocol, faces, protocol.official.test or "test"))
    return chosen, "the dataset has a test set only"


def inner(split: Split, faces: Faces, seed: int, fraction: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Split a training set again, for ``best-val``: (train, validation), no subject in both.

    About ``fraction`` of the subjects are held out; of the images, stratified, where subjects are unknown. An image
    whose picture is in both parts is learned from.
    Raises UsageError for a training set that is too small.
    """
    subjects = faces.samples["subject"].to_numpy()[split.train]
    if not (subjects == "").any():
        subjects = rules.people(faces, split.train)[0]
    labels = faces.samples["label"].to_numpy()[split.train]
    folds = grouped_folds(labels, subjects, round(1 / fraction), derive_seed(seed, "inner", split.fold))
    train, validation = (split.train[part] for part in folds[0]) if folds else (split.train, split.train[:0])
    both = np.isin(faces.pictures[validation], faces.pictures[train])
    if both.all():
        raise UsageError(f"fold {split.fold} trains on too little to hold some of it out: choose --selection last")
    return np.union1d(train, validation[both]), validation[~both]


def attribute_split(protocol: AttributeProtocol, faces: Faces, part: str, seed: int) -> PartSplit:
    """Draw stage 1's images of one part: half with any attribute of the part, half with none (Table 1).

    "We randomly select 30,000 (The ratio of positive and negative samples is 1:1) images to train the
    eyes-related branch and select 3,000 images for validation" (IV-A-1). From the official partitions
    where the set has them, else drawn apart from all images. A set too small for that gives what it has,
    with validation images in the same proportion at most, and a note.
    Raises DataError where the set lacks an attribute or has too few images.
    """
    attributes = getattr(protocol.parts, part)
    if missing := [name for name in attributes if name not in faces.samples]:
        raise DataError(f"the prepared dataset {faces.name} has no attribute {', '.join(missing)}")
    target = faces.samples[list(attributes)].to_numpy().astype(bool).any(axis=1)
    split = faces.samples["split"].to_numpy()
    rng = generator(seed, "attributes", part)
    train_wanted, validation_wanted = protocol.train_per_part // 2, protocol.validation_per_part // 2  # of each class
    partitioned = bool((split == "train").any() and (split == "val").any())
    masks = [split == "train", split == "val"] if partitioned else [np.ones(len(faces), dtype=bool)]
    pools = [[rng.permutation(np.flatnonzero(mask & (target == present))) for mask in masks] for present in (1, 0)]
    have = [min(len(pool) for pool in of_mask) for of_mask in zip(*pools, strict=True)]
    if partitioned:
        train_count = min(train_wanted, have[0])
        validation_count = min(have[1], -(-train_count * validation_wanted // train_wanted))
    else:
        whole = max(train_wanted + validation_wanted, have[0])
        train_count, validation_count = (have[0] * wanted // whole for wanted in (train_wanted, validation_wanted))
    if not train_count or not validation_count:
        raise DataError(f"the prepared dataset {faces.name} has too few images with and without {part} attributes")
    train = np.sort(np.concatenate([pool[0][:train_count] for pool in pools]))
    rest = [pool[1] if partitioned else pool[0][train_count:] for pool in pools]
    validation = np.sort(np.concatenate([pool[:validation_count] for pool in rest]))
    notes = []
    if (train_count, validation_count) != (train_wanted, validation_wanted):
        notes.append(
            f"{part}: {len(train):,} training and {len(validation):,} validation images, half of each "
            f"positive: the set is too small for {protocol.train_per_part:,} and "
            f"{protocol.validation_per_part:,}"
        )
    return PartSplit(
        part, train, target[train].astype(np.int64), validation, target[validation].astype(np.int64), tuple(notes)
    )


def to_csv(folds: tuple[Split, ...], faces: Faces) -> str:
    """Return the fold file: one row for each sample, fold and role."""
    import pandas as pd

    parts = []
    for split in folds:
        for role, rows in (("train", split.train), ("test", split.test)):
            part = faces.samples.iloc[rows][["id", "subject", "label"]].sort_values("id", kind="stable")
            parts.append(part.assign(fold=split.fold, role=role))
    return pd.concat(parts)[list(COLUMNS)].to_csv(index=False, lineterminator="\n")


def read_csv(path: Path) -> pd.DataFrame:
    """Read a fold file as text columns; ``role`` is "test" where the file has no such column.

    Raises DataError for what is no fold file.
    """
    frame = tables.frame(path, ("id", "fold"), COLUMNS)
    if "role" not in frame:
        frame["role"] = "test"
    frame["role"] = frame["role"].str.lower()
    for bad, what in (
        (frame["id"] == "", "names no sample"),
        (frame["fold"] == "", "names no fold"),
        (~frame["role"].isin(("train", "test")), "has another role than train and test"),
    ):
        if bad.any():
            raise DataError(f"the fold file {path}, line {frame.index[bad][0]}, {what}")
    return frame.reset_index(drop=True)


def notes(protocol: Protocol, faces: Faces, rows: np.ndarray) -> list[str]:
    """What a reader should know: classes without images, another number of images than expected, faces not aligned."""
    labels = set(faces.samples["label"].iloc[rows])
    notes = [f"the set has no image of {name}" for name in protocol.classes if name not in labels]
    if protocol.expected_images is not None and len(rows) != protocol.expected_images:
        notes.append(f"{len(rows):,} {protocol.level}s take part; the protocol expects {protocol.expected_images:,}")
    return [*notes, *alignment(faces, rows)]


def alignment(faces: Faces, rows: np.ndarray) -> list[str]:
    """Say how many of these images are no aligned faces, and how many another network's landmarks have aligned."""
    aligners = faces.samples["aligner"].iloc[rows]
    centred, aligned = (int((aligners == name).sum()) for name in (CENTRE, ALIGNED))
    return [
        *([unaligned(centred, len(rows))] if centred else []),
        *([f"{aligned:,} of {len(rows):,} crops are aligned by landmarks that O-Net found"] if aligned else []),
    ]


def _official(protocol: Protocol, faces: Faces, rows: np.ndarray) -> Split:
    assert protocol.official is not None
    if not protocol.official.test:
        raise UsageError(f"{protocol.identifier} has no test set: it serves pre-training only")
    split = faces.samples["split"].to_numpy()[rows]
    for part in (protocol.official.train, protocol.official.test):
        if part not in split:
            raise DataError(_without(protocol, faces, part))
    return Split("official", rows[split == protocol.official.train], rows[split == protocol.official.test])


def _without(protocol: Protocol, faces: Faces, split: str) -> str:
    """Say that a prepared dataset lacks a split, and which shipped protocols need only the splits that it has."""
    present = set(faces.samples["split"]) - {""}
    text = (
        f"{protocol.identifier} needs the split {split!r}, which the prepared dataset {faces.name} lacks; it has "
        f"{', '.join(sorted(present)) or 'no splits at all'}"
    )
    for name in protocols.names():
        other = protocols.load_any(name)
        official = other.official if isinstance(other, Protocol) and other.dataset == protocol.dataset else None
        if official and official.test and {official.train, official.test} <= present:
            return f"{text}: choose the protocol {name}, which tests the split {official.test}"
    return text


def _all_named(faces: Faces, rows: np.ndarray) -> None:
    """Folds by subject need subjects, and so does the proof that a fold file keeps them apart."""
    unknown = int((faces.samples["subject"].iloc[rows] == "").sum())
    if unknown:
        raise DataError(
            f"{unknown} of {len(rows)} images of {faces.name} name no subject, so folds by subject are "
            "impossible; prepare a copy of the dataset that names them"
        )


def _by_person(fold: np.ndarray, rows: np.ndarray) -> tuple[Split, ...]:
    return tuple(
        Split(f"{number + 1:02d}", rows[fold != number], rows[fold == number]) for number in range(fold.max() + 1)
    )


def _from_file(path: Path, faces: Faces, rows: np.ndarray) -> tuple[Split, ...]:
    frame = read_csv(path)
    place = {faces.samples["id"].iloc[row]: row for row in rows}
    if unknown := [name for name in frame["id"] if name not in place]:
        raise DataError(
            f"{path} names {len(unknown)} samples that {faces.name} lacks or the protocol leaves out, "
            f"such as {unknown[0]}"
        )
    folds = []
    for name in frame["fold"].unique():
        part = frame[frame["fold"] == name]
        test = np.sort(part.loc[part["role"] == "test", "id"].map(place).to_numpy())
        named = np.sort(part.loc[part["role"] == "train", "id"].map(place).to_numpy())
        train = named if len(named) else np.setdiff1d(rows, test)
        folds.append(Split(name, train.astype(np.int64), test.astype(np.int64)))
    return tuple(folds)
