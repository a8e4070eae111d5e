"""What ``ferbench protocol`` and ``ferbench audit`` do."""

from collections import Counter
from pathlib import Path
from typing import Any

from ferbench.data import faces
from ferbench.data.drawn import ensure
from ferbench.data.faces import Faces
from ferbench.errors import CheckFailed
from ferbench.files import data_home, write_text
from ferbench.labels import ABBREVIATIONS
from ferbench.protocol import protocol as room
from ferbench.protocol import splits
from ferbench.protocol.audit import Finding, audit
from ferbench.protocol.protocol import AttributeProtocol

Sections = list[tuple[str, dict[str, Any]]]


def protocols() -> Sections:
    """List all protocols with what they are."""
    found = [room.load_any(name) for name in room.names()]
    return [("protocols", {protocol.identifier: protocol.description for protocol in found})]


def describe(name: str, rule: str | None, seed: int, home: Path | None) -> Sections:
    """Show a protocol's rules; with its set prepared, its folds (or stage 1's draw) too."""
    protocol = room.load_any(name)
    sections: Sections = [(protocol.identifier, protocol.model_dump(exclude_none=True, exclude={"kind"}))]
    home = data_home(home)
    if not _there(protocol.dataset, home):
        return [*sections, ("folds", {protocol.dataset: "not prepared, so its folds cannot be shown"})]
    prepared = faces.load(protocol.dataset, home)
    if isinstance(protocol, AttributeProtocol):
        for part in type(protocol.parts).model_fields:
            drawn = splits.attribute_split(protocol, prepared, part, seed)
            sections.append((part, {"training images": len(drawn.train), "validation images": len(drawn.validation),
                                    "notes": drawn.notes}))  # fmt: skip
        return sections
    made = splits.make(protocol, prepared, rule, seed)
    table = {split.fold: _fold(split, prepared, made.classes) for split in made.folds}
    return [*sections, (f"folds: {made.rule}", table), ("checked", {
        "subjects on both sides": 0, "samples tested once": sum(len(split.test) for split in made.folds),
        "fold file": made.hash, "notes": made.notes,
    })]  # fmt: skip


def export_folds(name: str, out: Path, rule: str | None, seed: int, home: Path | None) -> str:
    """Write the fold file of a protocol. Returns the line that tells what was written."""
    home = data_home(home)
    protocol = room.load(name)
    _there(protocol.dataset, home)
    prepared = faces.load(protocol.dataset, home)
    made = splits.make(protocol, prepared, rule, seed)
    write_text(out, splits.to_csv(made.folds, prepared))
    return f"{out}: {made.rule}, SHA-256 {made.hash}"


def audit_split(folds: Path, dataset: str, home: Path | None) -> list[Finding]:
    """Audit a fold file against a prepared set."""
    home = data_home(home)
    _there(dataset, home)
    return audit(folds, faces.load(dataset, home))


def findings_table(findings: list[Finding]) -> Sections:
    """A section for each severity."""
    return [
        (f"{severity}s", {
            f"{finding.what}{f', fold {finding.fold}' if finding.fold else ''}":
                f"{finding.count:,}" + (f": {', '.join(finding.examples)}" if finding.examples else "")
            for finding in findings if finding.severity == severity
        } or {"none": ""})
        for severity in ("leak", "fault", "note")
    ]  # fmt: skip


def verdict(findings: list[Finding]) -> None:
    """Raise CheckFailed when an audit found more than notes."""
    counts = Counter(finding.severity for finding in findings if finding.severity != "note")
    if counts:
        found = " and ".join(f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in counts.items())
        raise CheckFailed(f"this split must not be used: {found}")


def _fold(split: splits.Split, prepared: Faces, classes: tuple[str, ...]) -> str:
    test = prepared.samples.iloc[split.test]
    counts = Counter(test["label"])
    people = f", {test['subject'].nunique()} subjects" if (test["subject"] != "").all() else ""
    return (f"train {len(split.train):,}, test {len(test):,}{people}: "
            + ", ".join(f"{ABBREVIATIONS[name]} {counts[name]}" for name in classes))  # fmt: skip


def _there(name: str, home: Path) -> bool:
    ensure(name, home, lambda done, total, text: None)
    return (home / name / "card.json").is_file()
