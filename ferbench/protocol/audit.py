"""Auditing anybody's split: who is on both sides, what is never tested, which pixels repeat."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from ferbench.data.faces import Faces
from ferbench.labels import emotion
from ferbench.protocol.splits import read_csv

SHOWN = 5  # offenders named in a finding


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found. "leak" and "fault" fail it; a "note" does not."""

    severity: Literal["leak", "fault", "note"]
    fold: str
    what: str
    count: int
    examples: tuple[str, ...]


def audit(path: Path, faces: Faces) -> list[Finding]:
    """Return what is wrong with the fold file ``path`` (columns id, fold and, if it has them, role, subject,
    label) on a prepared set, leaks first.

    A file without training rows is read as naming each fold's test side: everything else is trained on.
    """
    frame = read_csv(path)
    samples = faces.samples.set_index("id")
    unknown = frame.loc[~frame["id"].isin(samples.index), "id"].drop_duplicates()
    findings = [_finding("fault", "", "ids that the prepared set does not have", unknown)]
    frame = frame[frame["id"].isin(samples.index)]
    for column in ("subject", "label"):
        if column in frame:
            findings.append(_contradictions(frame, samples, column))
    complete = not (frame["role"] == "train").any()
    everyone = frame["id"].drop_duplicates()
    for fold, part in frame.groupby("fold", sort=True):
        test = part.loc[part["role"] == "test", "id"]
        train = everyone[~everyone.isin(test)] if complete else part.loc[part["role"] == "train", "id"]
        findings += _sides(str(fold), train, test, samples)
    times = frame.loc[frame["role"] == "test", "id"].value_counts()
    official = frame["fold"].nunique() == 1 and not complete
    never = everyone[~everyone.isin(times.index)]
    if not official:  # one split tests one side; cross-validation tests everything
        findings.append(_finding("fault", "", "samples never tested", never))
    findings.append(_finding("fault", "", "samples tested more than once", pd.Series(times[times > 1].index)))
    left_out = samples.index[~samples.index.isin(everyone)]
    findings.append(_finding("note", "", "samples of the prepared set that the file leaves out", pd.Series(left_out)))
    order = {"leak": 0, "fault": 1, "note": 2}
    return sorted((finding for finding in findings if finding.count), key=lambda f: (order[f.severity], f.fold))


def _sides(fold: str, train: pd.Series, test: pd.Series, samples: pd.DataFrame) -> list[Finding]:
    a, b = samples.loc[train.unique()], samples.loc[test.unique()]
    people = sorted((set(a["subject"]) & set(b["subject"])) - {""})
    same = sorted(set(a.index) & set(b.index))
    twins = sorted(set(b.index[b["sha256"].isin(set(a["sha256"]))]) - set(same))
    findings = [
        _finding("leak", fold, "subjects on both sides", pd.Series(people, dtype=str)),
        _finding("leak", fold, "samples on both sides", pd.Series(same, dtype=str)),
        _finding("leak", fold, "test samples whose very pixels are trained on", pd.Series(twins, dtype=str)),
    ]
    if (samples["subject"] == "").all():
        findings.append(Finding("note", fold, "subjects are unknown: people may be on both sides", 1, ()))
    for side, part in (("training", a), ("test", b)):
        absent = sorted(set(samples["label"]) - set(part["label"]) - {""})
        findings.append(_finding("note", fold, f"classes absent from the {side} side", pd.Series(absent, dtype=str)))
    return findings


def _contradictions(frame: pd.DataFrame, samples: pd.DataFrame, column: str) -> Finding:
    given = frame.drop_duplicates("id").set_index("id")[column].str.strip()
    if column == "label":
        given = given.map(_emotion)
    known = samples[column].reindex(given.index)
    wrong = given.index[(given != "") & (known != "") & (given != known)]
    return _finding("fault", "", f"{column}s that contradict the prepared set", pd.Series(wrong))


def _emotion(name: str) -> str:
    """Numbers are another file's own business; words are compared."""
    return "" if not name or name.lstrip("-").isdigit() else emotion(name)


def _finding(severity: Literal["leak", "fault", "note"], fold: str, what: str, found: pd.Series) -> Finding:
    return Finding(severity, fold, what, len(found), tuple(str(name) for name in found[:SHOWN]))
