"""What ``ferbench protocol`` and ``ferbench audit`` do."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ferbench.data import faces
from ferbench.data.faces import Faces
from ferbench.data.synthetic import ensure
from ferbench.errors import CheckFailed, DataError, UsageError
from ferbench.files import data_home, write_text
from ferbench.labels import ABBREVIATIONS
from ferbench.protocol import leakage, splits
from ferbench.protocol import protocol as room
from ferbench.protocol.leakage import Finding, Severity, audit, of_folds
from ferbench.protocol.protocol import AttributeProtocol

Sections = list[tuple[str, dict[str, Any] | list[dict[str, Any]]]]


def protocols() -> Sections:
    """List all protocols with what they are."""
    shipped = [room.load_any(name) for name in room.names()]
    return [("protocols", {protocol.identifier: protocol.description for protocol in shipped})]


def describe(name: str, rule: str | None, seed: int, home: Path | None) -> Sections:
    """Show a protocol's rules; with its set prepared, its folds (or stage 1's draw) too.

    Raises UsageError for a fold rule where there are no folds.
    """
    protocol = room.load_any(name)
    if rule and (isinstance(protocol, AttributeProtocol) or not protocol.folds):
        raise UsageError(f"{protocol.identifier} has no folds: --rule does not apply")
    sections: Sections = [("protocol", protocol.model_dump(mode="json", exclude_none=True))]
    home = data_home(home)
    if not _there(protocol.dataset, home):
        return [*sections, ("missing", {"split": f"{protocol.dataset} is not prepared in {home}"})]
    prepared = faces.load(protocol.dataset, home)
    try:
        if isinstance(protocol, AttributeProtocol):
            return [*sections, *_drawn(protocol, prepared, seed)]
        if protocol.official and not protocol.official.test:
            train, validation = splits.training_sets(protocol, prepared)
            return [*sections, ("split", {"train": len(train), "validation": len(validation)})]
        return [*sections, *_folds(splits.make(protocol, prepared, rule, seed), prepared)]
    except DataError as error:  # the rules are worth showing even where this copy of the set does not fit them
        return [*sections, ("missing", {"split": str(error)})]


def export_folds(name: str, out: Path, rule: str | None, seed: int, by_image: bool, home: Path | None) -> str:
    """Write the fold file of a protocol, or that of image folds, which leak. Returns the line that tells of it."""
    home = data_home(home)
    protocol = room.load(name)
    _there(protocol.dataset, home)
    prepared = faces.load(protocol.dataset, home)
    if by_image and rule:
        raise UsageError("--image-folds is a rule of its own: leave out --rule")
    folds = leakage.image_folds(protocol, prepared) if by_image else splits.make(protocol, prepared, rule, seed)
    write_text(out, splits.to_csv(folds.folds, prepared))
    return f"{out}: {folds.rule}, SHA-256 {folds.hash}"


def audit_split(folds: Path, dataset: str, home: Path | None) -> list[Finding]:
    """Audit a fold file against a prepared dataset."""
    home = data_home(home)
    _there(dataset, home)
    return audit(folds, faces.load(dataset, home))


def findings_table(findings: list[Finding]) -> Sections:
    """The findings, one a row, then how many of each severity there are."""
    counts = Counter(finding.severity for finding in findings)
    return [
        ("findings", [asdict(finding) for finding in findings]),
        ("audit", {f"{severity}s": counts[severity] for severity in get_args(Severity)}),
    ]


def verdict(findings: list[Finding]) -> None:
    """Raise CheckFailed when an audit found more than notes."""
    counts = Counter(finding.severity for finding in findings if finding.severity != "note")
    if counts:
        faults = " and ".join(f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in counts.items())
        raise CheckFailed(f"this split must not be used: {faults}")


def _folds(folds: splits.Splits, prepared: Faces) -> Sections:
    """A row for each fold: training and test images; of the test set, subjects (where known) and each class."""
    first = folds.folds[0]
    subjects = prepared.samples["subject"].iloc[np.concatenate([first.train, first.test])]
    named = bool((subjects != "").all())
    rows: list[dict[str, Any]] = []
    for split in folds.folds:
        test = prepared.samples.iloc[split.test]
        counts = Counter(test["label"])
        people = {"subjects": test["subject"].nunique()} if named else {}
        classes = {ABBREVIATIONS[name]: counts[name] for name in folds.classes}
        rows.append({"fold": split.fold, "train": len(split.train), "test": len(test), **people, **classes})
    return [
        ("folds", rows),
        (
            "split",
            {
                "rule": folds.rule,
                "images": len(subjects),
                "subjects": subjects.nunique() if named else "unknown",
                **({"checked": "every sample tested once"} if len(rows) > 1 else {}),
                "audit": str(of_folds(folds, prepared)),
                "sha256": folds.hash,
                "notes": folds.notes,
            },
        ),
    ]


def _drawn(protocol: AttributeProtocol, prepared: Faces, seed: int) -> Sections:
    drawn = [splits.attribute_split(protocol, prepared, part, seed) for part in type(protocol.parts).model_fields]
    rows = [{"part": d.part, "train": len(d.train), "validation": len(d.validation)} for d in drawn]
    return [("drawn", rows), ("split", {"notes": [note for d in drawn for note in d.notes]})]


def _there(name: str, home: Path) -> bool:
    ensure(name, home)
    return (home / name / "card.json").is_file()
