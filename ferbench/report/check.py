"""``ferbench check``: stored runs compared with accepted ones."""

import json
import re
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from ferbench import DEFAULT_METHOD, __version__, metrics, statistics
from ferbench.errors import CheckFailed, DataError, UsageError
from ferbench.files import runs_home, sha256_of, shipped, write_text
from ferbench.report.compare import Result, agree, comparable, results
from ferbench.report.formats import PLAIN, check_format, names, renderer
from ferbench.report.tested_runs import Level
from ferbench.runs.store import Store
from ferbench.schema import Schema, read_json, validated

FORMATS = (*PLAIN, *names("check"))
_OWN = Path("baselines") / "accepted"  # of the current folder, which is a project of the user's
LEVEL = 0.05  # how often a check may fail though nothing but luck has changed
SAME = 0.02  # by which the margin between the two highest probabilities may move: rounding moves it far less


class Reason(Schema):
    """Why a figure was accepted."""

    why: str
    when: str  # ISO date
    ferbench: str  # version
    accuracy: float


class Accepted(Schema):
    """``baselines/accepted/*.json``: how a method did under a protocol, with which later runs are compared.

    Of a licensed set it gives away neither a name nor a label: images and people stand there as hashes, with
    whether each was right and, of an evaluation, what was predicted.
    """

    schema_version: Literal[2] = 2
    method: str
    title: str
    preset: str
    protocol: str
    split: str
    data: str
    selection: str
    evaluation: bool
    level: Level = "image"  # what one prediction is of: ``ids`` are of images or of sequences
    classes: list[str]
    seeds: list[int]
    accuracy: float  # mean over the seeds
    ids: list[str]  # hashes, see :func:`_hashed`
    subjects: list[str]  # likewise; empty where unknown
    hits: list[list[Literal[0, 1]]]  # of each seed
    predictions: list[int] = Field(default_factory=list)  # of an evaluation: places in ``classes``
    margins: list[float] = Field(default_factory=list)  # likewise: the highest probability minus the next
    reasons: list[Reason]  # the last one is why it is as it is

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """One figure for each image, and each image once."""
        n = len(self.ids)
        if not n or len(set(self.ids)) < n or len(self.subjects) != n:
            raise ValueError("ids are no names of images, each once, with a subject each")
        if len(self.hits) != len(self.seeds) or not self.hits or any(len(hits) != n for hits in self.hits):
            raise ValueError("hits are not one for each seed and image")
        if self.evaluation and (len(self.predictions) != n or len(self.margins) != n):
            raise ValueError("an evaluation has a prediction and a margin for each image")
        if not all(0 <= place < len(self.classes) for place in self.predictions):
            raise ValueError("predictions are places in classes")
        return self

    def frames(self, now: pd.DataFrame) -> list[pd.DataFrame]:
        """The accepted predictions of each seed, as far as they are kept: right, or something else than the truth.

        now : predictions of the same images, with hashes, which tell the truths.
        Raises DataError where images are missing in it.
        """
        truths = now.set_index("id")["truth"].reindex(self.ids)
        if truths.isna().any():
            raise DataError(f"{int(truths.isna().sum())} of the {len(self.ids)} accepted {self.level}s were not tested")
        return [
            pd.DataFrame(
                {
                    "id": self.ids,
                    "subject": self.subjects,
                    "truth": truths.to_numpy(),
                    "prediction": np.where(np.array(hits, dtype=bool), truths, ""),
                }
            )
            for hits in self.hits
        ]


@dataclass(frozen=True)
class Finding:
    """One baseline and what became of it. Shares are fractions; ``p`` is null where it was not asked for."""

    baseline: str
    name: str
    held: bool
    accepted: float
    found: float
    images: int
    p: float | None
    line: str  # all of it in one line


def check_runs(baselines: list[Path], tolerance: str, format: str, runs: Path | None) -> None:
    """Compare the runs of a store with accepted ones and print what was found.

    tolerance : "auto" or points of accuracy that may be lost.
    Raises CheckFailed where anything fell, DataError where nothing can be checked or was tested on other data.
    """
    check_format(format, formats=FORMATS)
    allowed = _points(tolerance)
    home = runs_home(runs)
    stored = results(Store(home))
    paths = baselines or _files()
    findings = []
    for path in paths:
        accepted = validated(Accepted, read_json(path), path)
        result = _match(accepted, stored, path)
        if result is not None:
            findings.append(compared(accepted, result, allowed, path.stem))
        elif baselines:
            name = Result.named(accepted.title, accepted.preset, accepted.protocol, accepted.evaluation)
            raise DataError(f"no run in {home} matches {path}: {name}")
    if not findings:
        raise DataError(f"no run in {home} has an accepted figure: `ferbench check --accept --reason …` records one")
    _print(findings, format)
    if fallen := [finding for finding in findings if not finding.held]:
        raise CheckFailed(f"{len(fallen)} of {len(findings)} accepted figures fell")


def _points(tolerance: str) -> float | None:
    if tolerance == "auto":
        return None
    try:
        points = float(tolerance)
    except ValueError:
        points = -1.0
    if not points >= 0:
        raise UsageError(f"--tolerance takes auto or points that may be lost, not {tolerance!r}")
    return points


def _files() -> list[Path]:
    """The files of accepted figures: the current folder's own where it has such a folder, else those of the package."""
    home = _OWN if _OWN.is_dir() else shipped("baselines") / "accepted"
    return sorted(home.glob("*.json"))


def _match(accepted: Accepted, stored: list[Result], path: Path) -> Result | None:
    """The stored result of the baseline's method, preset and protocol, whatever version or data it has."""

    def recipe(tested: Result | Accepted) -> tuple[object, ...]:
        name = tested.protocol.partition("@")[0]
        return tested.method, tested.title, tested.preset, tested.selection, tested.evaluation, name

    matches = [result for result in stored if recipe(result) == recipe(accepted)]
    if len(matches) > 1:
        raise UsageError(
            f"{path.stem}: {len(matches)} recipes of {matches[0].name} are stored; check a folder with one"
        )
    return matches[0] if matches else None


def compared(accepted: Accepted, result: Result, allowed: float | None, name: str) -> Finding:
    """Compare a result with accepted predictions of the same images.

    allowed : points that may be lost; None asks whether chance explains the fall. Of trainings two chances
    are asked, and it fell only where neither does, so that either keeps false alarms at :data:`LEVEL`:
    people (one-sided permutation over subjects) and luck of training (Student's t of the seeds' accuracies, where
    any result has two). Of an evaluation, in which nothing is left to chance, every image must be predicted as
    it was and as surely, but for ties.
    """
    comparable(accepted, result)
    agree("data fingerprints", accepted.data[:12], result.data[:12])  # which salts the names of the accepted images
    frames = [_hashed(frame, result.data) for frame in result.frames]
    before = accepted.frames(frames[0])
    frames = [frame[frame["id"].isin(accepted.ids)] for frame in frames]  # the baseline may be of some folds
    pair = statistics.paired(before, frames)
    gap = statistics.difference(pair)
    p, why = None, ""
    if allowed is not None:
        held = 100 * gap.value >= -allowed
        why = f"{allowed:g} points may be lost"
    elif accepted.evaluation:
        changed = _changed(accepted, frames[0])
        held = not changed
        why = f"same weights: {len(changed)} {result.level}s are predicted otherwise or with another certainty"
    else:
        p = max(statistics.permutation(pair, side="worse"), _luck(before, frames))
        held = p > LEVEL
        why = f"p = {p:.3f}"
        if len(accepted.seeds) == len(result.seeds) == 1:
            why += ", one seed each, so the luck of training is not known"
    verb = "held" if held else "fell"
    line = (
        f"{verb}: {result.name}: {accepted.accuracy:.2%} → {pair.second.mean():.2%}, {100 * gap.value:+.2f} points "
        f"(95 % interval {100 * gap.low:+.2f} to {100 * gap.high:+.2f} over {gap.units} {gap.over}, "
        f"n = {len(pair.ids)}; {why})"
    )
    if not held:
        line += _worst(pair, frames[0])
    return Finding(name, result.name, held, accepted.accuracy, float(pair.second.mean()), len(pair.ids), p, line)


def _luck(before: list[pd.DataFrame], after: list[pd.DataFrame]) -> float:
    """One-sided p of Student's t on the accuracies of the seeds, equal variances; 0 where no result has two."""
    from scipy.special import stdtr

    a, b = (np.array([metrics.hit_rate(f) for f in seeds]) for seeds in (before, after))
    free = len(a) + len(b) - 2
    if not free:
        return 0.0
    variance = (((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()) / free
    fall = b.mean() - a.mean()
    if variance == 0:
        return 0.0 if fall < 0 else 1.0
    return float(stdtr(free, fall / np.sqrt(variance * (1 / len(a) + 1 / len(b)))))


def _changed(accepted: Accepted, frame: pd.DataFrame) -> list[str]:
    """Images of an evaluation whose margin moved by more than rounding; to the other class it moves through 0."""
    frame = frame.set_index("id").loc[accepted.ids]
    same = frame["prediction"].to_numpy() == np.array(accepted.classes)[accepted.predictions]
    now = _margins(frame, accepted.classes) * np.where(same, 1, -1)
    return [accepted.ids[i] for i in np.flatnonzero(np.abs(now - accepted.margins) > SAME)]


def _margins(frame: pd.DataFrame, classes: list[str]) -> np.ndarray:
    """The highest probability of each image minus the next [N]."""
    top = np.sort(frame[[f"p_{name}" for name in classes]].to_numpy(), axis=1)
    return top[:, -1] - top[:, -2]


def _hashed(frame: pd.DataFrame, data: str) -> pd.DataFrame:
    """Predictions with the names of images and people as the first 12 hex digits of SHA-256("fingerprint:name")."""

    def hashed(name: str) -> str:
        return sha256_of(f"{data}:{name}".encode())[:12] if name else ""

    return frame.assign(id=frame["id"].map(hashed), subject=frame["subject"].map(hashed))


def _worst(pair: statistics.Paired, frame: pd.DataFrame) -> str:
    """The classes that lost most, in words."""
    truth = frame.set_index("id").loc[pair.ids, "truth"].to_numpy()
    lost = {name: float((pair.second - pair.first)[truth == name].mean()) for name in sorted(set(truth))}
    worst = sorted((points, name) for name, points in lost.items() if points < 0)[:2]
    return "; most in " + ", ".join(f"{name} {100 * points:+.1f}" for points, name in worst) if worst else ""


def _print(findings: list[Finding], format: str) -> None:
    if format == "console":
        sys.stdout.write("".join(f"{finding.line}\n" for finding in findings))
    else:
        sys.stdout.write(renderer(format)(findings))


def accept_runs(baselines: list[Path], why: str, runs: Path | None) -> None:
    """Record what the runs of a store say as accepted, one file for each method; older reasons stay.

    baselines : the file to write, where the store holds one method alone; when left out, files in
        ``baselines/accepted`` of the current folder, named after what they hold.
    Raises UsageError without a reason, DataError without runs.
    """
    if not why.strip():
        raise UsageError('--accept takes a reason: --reason "longer fine-tuning, see the report"')
    home = runs_home(runs)
    found = results(Store(home))
    if not found:
        raise DataError(f"no tested run in {home}: `ferbench train {DEFAULT_METHOD} --dataset synth`")
    if baselines and (len(baselines) > 1 or len(found) > 1):
        raise UsageError(f"--baseline names one file, and {home} has {len(found)} methods")
    for result in found:
        path = baselines[0] if baselines else _OWN / f"{_slug(result)}.json"
        reasons = validated(Accepted, read_json(path), path).reasons if path.is_file() else []
        accepted = _accepted(result, why.strip(), reasons)
        write_text(path, json.dumps(accepted.model_dump(), ensure_ascii=False) + "\n")
        print(f"accepted {result.name}: {accepted.accuracy:.2%} of {len(accepted.ids)} {result.level}s in {path}")


def _slug(result: Result) -> str:
    kind = ["evaluation"] if result.evaluation else []
    best = [result.selection] if result.selection != "last" else []
    name = "-".join([result.protocol.partition("@")[0], result.method, result.preset, *best, *kind])
    return re.sub(r"[/\\:]|^\.+", "_", name)


def _accepted(result: Result, why: str, reasons: list[Reason]) -> Accepted:
    frames = [_hashed(frame, result.data).sort_values("id").reset_index(drop=True) for frame in result.frames]
    first = frames[0]
    accuracy = float(statistics.paired(frames, frames).first.mean())
    kept: dict[str, Any] = {}
    if result.evaluation:
        kept["predictions"] = [result.classes.index(name) for name in first["prediction"]]
        kept["margins"] = [round(float(margin), 4) for margin in _margins(first, result.classes)]
    return Accepted(
        method=result.method,
        title=result.title,
        preset=result.preset,
        protocol=result.protocol,
        split=result.split,
        data=result.data,
        selection=result.selection,
        evaluation=result.evaluation,
        level=result.level,
        classes=result.classes,
        seeds=result.seeds,
        accuracy=accuracy,
        ids=list(first["id"]),
        subjects=list(first["subject"]),
        hits=[metrics.hits(frame).astype(int).tolist() for frame in frames],
        **kept,
        reasons=[*reasons, Reason(why=why, when=date.today().isoformat(), ferbench=__version__, accuracy=accuracy)],
    )
