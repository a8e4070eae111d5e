"""``ferbench check``: stored runs compared with accepted figures, and how figures are accepted."""

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import AliasChoices, Field, model_validator

from ferbench import DEFAULT_METHOD, __version__, metrics, statistics
from ferbench.errors import CheckFailed, DataError, UsageError
from ferbench.files import runs_home, sha256_of, shipped, write_text
from ferbench.report.compare import Result, agree, comparable, results
from ferbench.report.formats import PLAIN, check_format, names, renderer
from ferbench.report.tested_runs import Level
from ferbench.runs.store import Store
from ferbench.schema import Schema, read_json, validated

FORMATS = (*PLAIN, *names("check"))
LEVEL = 0.05  # how often a check may fail though nothing but chance has changed
SAME = 0.02  # by which the margin between the two highest probabilities may move: rounding moves it far less
HOME = Path("baselines") / "accepted"  # in the current folder


class Reason(Schema):
    """Why a figure was accepted."""

    why: str
    when: str  # ISO date
    ferbench: str  # version
    accuracy: float


class Accepted(Schema):
    """``baselines/accepted/*.json``: the accuracy of a method under a protocol, with which later runs are compared.

    Of a licensed set it gives away neither a name nor a label: images and people stand there as hashes, with
    whether each was right and, of an evaluation, what was predicted.
    """

    schema_version: Literal[2] = 2
    method: str
    title: str
    preset: str
    protocol: str
    variant: str = ""  # of the recipe (``Result.variant``); empty in files of earlier versions
    split: str
    data: str
    selection: str
    evaluation: bool
    level: Level = "image"  # what one prediction is of: ``ids`` are of images or of sequences
    classes: list[str]
    seeds: list[int]
    accuracy: float  # mean over the seeds
    ids: list[str]  # hashes, see :func:`hashed`
    subjects: list[str]  # likewise; empty where unknown
    correct: list[list[Literal[0, 1]]] = Field(validation_alias=AliasChoices("correct", "hits"))  # of each seed
    predictions: list[int] = Field(default_factory=list)  # of an evaluation: places in ``classes``
    margins: list[float] = Field(default_factory=list)  # likewise: the highest probability minus the next
    reasons: list[Reason]  # of all accepted figures so far, the present one last

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """One figure for each image, and each image once."""
        n = len(self.ids)
        if not n or len(set(self.ids)) < n or len(self.subjects) != n:
            raise ValueError("ids are no names of images, each once, with a subject each")
        if not self.seeds or [len(correct) for correct in self.correct] != [n] * len(self.seeds):
            raise ValueError("correct does not have one value for each seed and image")
        if self.evaluation and (len(self.predictions) != n or len(self.margins) != n):
            raise ValueError("an evaluation has a prediction and a margin for each image")
        if not all(0 <= place < len(self.classes) for place in self.predictions):
            raise ValueError("predictions are places in classes")
        return self

    @property
    def name(self) -> str:
        return Result.named(self.title, self.preset, self.protocol, self.evaluation)

    def frames(self, now: pd.DataFrame) -> list[pd.DataFrame]:
        """The accepted predictions of each seed, as far as they are kept: the truth where correct, else empty.

        now : predictions of the same images, with hashes, which state the truths.
        Raises DataError where images are missing in it.
        """
        truths = now.set_index("id")["truth"].reindex(self.ids)
        if truths.isna().any():
            raise DataError(f"{int(truths.isna().sum())} of the {len(self.ids)} accepted {self.level}s were not tested")
        known = pd.DataFrame({"id": self.ids, "subject": self.subjects, "truth": truths.to_numpy()})
        return [
            known.assign(prediction=np.where(np.array(correct, dtype=bool), truths, "")) for correct in self.correct
        ]


def read(path: Path) -> Accepted:
    """Read a file of accepted figures. Raises DataError for one that is none."""
    return validated(Accepted, read_json(path), path)


@dataclass(frozen=True)
class Finding:
    """The outcome for one accepted figure. Shares are fractions.

    held : null where there is no run and none is needed. found : accuracy of the run, null where there is none.
    p : null where no test was made.
    """

    baseline: str
    name: str
    held: bool | None
    accepted: float
    found: float | None
    images: int
    p: float | None
    line: str  # all of it in one line


def check_runs(baselines: list[Path], tolerance: str, format: str, runs: Path | None) -> None:
    """Compare the runs of a store with accepted ones and print the outcome.

    baselines : files of accepted figures. When left out, those of ``baselines/accepted`` in the current folder, of
        which each must have its run; without such a folder, those that come with ferbench, as far as there are runs.
    tolerance : "auto" or points of accuracy that may be lost.
    Raises CheckFailed where anything fell or has no run, DataError where nothing can be checked or was tested on other
    data, UsageError where it is not clear which run belongs to a figure.
    """
    check_format(format, formats=FORMATS)
    allowed = _points(tolerance)
    home = runs_home(runs)
    needed = bool(baselines) or HOME.is_dir()
    paths = baselines or sorted((HOME if needed else shipped("baselines") / "accepted").glob("*.json"))
    figures = [read(path) for path in paths]
    matches = _matches(figures, results(Store(home)))
    if not any(matches):
        named = f": {', '.join(accepted.name for accepted in figures)}" if baselines else ""
        raise DataError(
            f"no run in {home} has an accepted figure{named}; train or evaluate first, or record one by "
            "`ferbench check --accept --reason …`"
        )
    findings = [
        compared(accepted, result, allowed, path.stem) if result else _without_run(accepted, path, home, needed)
        for path, accepted, result in zip(paths, figures, matches, strict=True)
    ]
    findings.sort(key=lambda finding: finding.held is None)  # what was not checked comes last
    _print(findings, format)
    checked = [finding for finding in findings if finding.held is not None]
    fallen = sum(not finding.held and finding.found is not None for finding in checked)
    missing = sum(finding.found is None for finding in checked)
    if fallen or missing:
        counts = {"fell": fallen, "have no run": missing}
        raise CheckFailed(
            ", ".join(f"{n} of {len(checked)} accepted figures {what}" for what, n in counts.items() if n)
        )


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


def _matches(figures: Sequence[Accepted], stored: list[Result]) -> list[Result | None]:
    """The stored result of each figure: that of its method, preset and protocol, whatever version, recipe or data it
    has; where there are several, that of its recipe. None where there is none.

    Raises UsageError for several results of which not all are in the figures: which is meant is not known then.
    """
    by_name: dict[tuple[object, ...], dict[str, Result]] = defaultdict(dict)
    for result in stored:
        by_name[_key(result)][result.variant] = result
    accepted_variants: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for accepted in figures:
        accepted_variants[_key(accepted)].add(accepted.variant)
    matches: list[Result | None] = []
    for accepted in figures:
        variants, known = by_name[_key(accepted)], accepted_variants[_key(accepted)]
        if len(variants) == len(known) == 1:
            matches += variants.values()
            continue
        if unaccepted := variants.keys() - known:
            raise UsageError(
                f"{accepted.name} is stored with recipes that have no accepted figure "
                f"({', '.join(sorted(unaccepted))}): accept them by `ferbench check --accept`, "
                "or check a folder of runs without them"
            )
        matches.append(variants.get(accepted.variant))
    return matches


def _key(tested: Result | Accepted) -> tuple[object, ...]:
    name = tested.protocol.partition("@")[0]
    return tested.method, tested.title, tested.preset, tested.selection, tested.evaluation, name


def _without_run(accepted: Accepted, path: Path, home: Path, needed: bool) -> Finding:
    """What is said of an accepted figure that no stored run has; it fails where it is ``needed``."""
    line = f"{'missing' if needed else 'not checked'}: {accepted.name}: no run in {home}"
    if needed:
        line += f" for {path}: train or evaluate it again, or remove the file if it is no longer wanted"
    held = False if needed else None
    return Finding(path.stem, accepted.name, held, accepted.accuracy, None, len(accepted.ids), None, line)


def compared(accepted: Accepted, result: Result, allowed: float | None, name: str) -> Finding:
    """Compare a result with accepted predictions of the same images.

    allowed : points that may be lost; None tests whether chance explains the fall. For trainings there are two tests,
    each with false alarms at :data:`LEVEL`, and the accuracy fell only where both say so: a one-sided permutation
    over subjects, and Student's t of the seeds' accuracies, where any result has two. An evaluation has no chance in
    it, so every image must be predicted as before and with the same margin, but for rounding.
    """
    comparable(accepted, result)
    agree("data fingerprints", accepted.data[:12], result.data[:12])  # which salts the names of the accepted images
    frames = [hashed(frame, result.data) for frame in result.frames]
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
        why = f"same weights: {len(changed)} {result.level}s are predicted differently or with another margin"
    else:
        p = max(statistics.permutation(pair, side="worse"), _luck(before, frames))
        held = p > LEVEL
        why = f"p = {p:.3f}"
        if len(accepted.seeds) == len(result.seeds) == 1:
            why += ", one seed each, so chance in training is not known"
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

    a, b = (np.array([metrics.share_correct(f) for f in seeds]) for seeds in (before, after))
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
    now = margins(frame, accepted.classes) * np.where(same, 1, -1)
    return [accepted.ids[i] for i in np.flatnonzero(np.abs(now - accepted.margins) > SAME)]


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


# How figures are accepted


def accept_runs(baselines: list[Path], why: str, runs: Path | None) -> None:
    """Record the stored results as accepted, one file for each recipe; the reasons of earlier figures stay.

    baselines : the file to write, where the store holds one recipe only; when left out, files in
        ``baselines/accepted`` of the current folder, named after what they hold.
    Raises UsageError without a reason, DataError without runs.
    """
    if not why.strip():
        raise UsageError('--accept takes a reason: --reason "longer fine-tuning, see the report"')
    home = runs_home(runs)
    stored = results(Store(home))
    if not stored:
        raise DataError(f"no tested run in {home}: `ferbench train {DEFAULT_METHOD} --dataset synth`")
    if baselines and (len(baselines) > 1 or len(stored) > 1):
        raise UsageError(f"--baseline names one file, and {home} has {len(stored)} methods")
    paths = baselines or _paths(stored)
    for result, path in zip(stored, paths, strict=True):
        reasons = read(path).reasons if path.is_file() else []
        accepted = accepted_of(result, why.strip(), reasons)
        write_text(path, json.dumps(accepted.model_dump(), ensure_ascii=False) + "\n")
        print(f"accepted {result.name}: {accepted.accuracy:.2%} of {len(accepted.ids)} {result.level}s in {path}")


def _paths(stored: list[Result]) -> list[Path]:
    """The file of each result. Recipes of one name have their variant in the file's name, even if one is left."""
    names = [_file_name(result) for result in stored]
    count = Counter(names)
    exact = [HOME / f"{name}-{result.variant}.json" for name, result in zip(names, stored, strict=True)]
    return [
        path if count[name] > 1 or path.is_file() else HOME / f"{name}.json"
        for name, path in zip(names, exact, strict=True)
    ]


def _file_name(result: Result) -> str:
    kind = ["evaluation"] if result.evaluation else []
    best = [result.selection] if result.selection != "last" else []
    name = "-".join(filter(None, [result.protocol.partition("@")[0], result.method, result.preset, *best, *kind]))
    return re.sub(r"[/\\:]|^\.+", "_", name)


def accepted_of(result: Result, why: str, reasons: list[Reason]) -> Accepted:
    """Return a result as an accepted figure. reasons : of earlier figures, which are kept."""
    frames = [hashed(frame, result.data).sort_values("id").reset_index(drop=True) for frame in result.frames]
    first = frames[0]
    accuracy = float(statistics.paired(frames, frames).first.mean())
    kept: dict[str, Any] = {name: getattr(result, name) for name in Accepted.model_fields if hasattr(result, name)}
    if result.evaluation:
        kept["predictions"] = [result.classes.index(name) for name in first["prediction"]]
        kept["margins"] = [round(float(margin), 4) for margin in margins(first, result.classes)]
    return Accepted(
        **kept,
        accuracy=accuracy,
        ids=list(first["id"]),
        subjects=list(first["subject"]),
        correct=[metrics.correct(frame).astype(int).tolist() for frame in frames],
        reasons=[*reasons, Reason(why=why, when=date.today().isoformat(), ferbench=__version__, accuracy=accuracy)],
    )


def margins(frame: pd.DataFrame, classes: list[str]) -> np.ndarray:
    """The highest probability of each image minus the next [N]."""
    top = np.sort(frame[[f"p_{name}" for name in classes]].to_numpy(), axis=1)
    return top[:, -1] - top[:, -2]


def hashed(frame: pd.DataFrame, data: str) -> pd.DataFrame:
    """Predictions with the names of images and people as the first 12 hex digits of SHA-256("fingerprint:name")."""

    def digest(name: str) -> str:
        return sha256_of(f"{data}:{name}".encode())[:12] if name else ""

    return frame.assign(id=frame["id"].map(digest), subject=frame["subject"].map(digest))
