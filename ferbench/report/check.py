"""``ferbench check``: stored runs compared with accepted ones."""

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ferbench import metrics, statistics
from ferbench.errors import CheckFailed, DataError, UsageError
from ferbench.files import runs_home, shipped
from ferbench.report.accepted import OWN, Accepted, hashed, margins, read
from ferbench.report.compare import Result, agree, comparable, results
from ferbench.report.formats import PLAIN, check_format, names, renderer
from ferbench.runs.store import Store

FORMATS = (*PLAIN, *names("check"))
LEVEL = 0.05  # how often a check may fail though nothing but luck has changed
SAME = 0.02  # by which the margin between the two highest probabilities may move: rounding moves it far less


@dataclass(frozen=True)
class Finding:
    """One accepted figure and what became of it. Shares are fractions.

    held : null where no run was found and none had to be. found : null where no run was found. p : null where chance
    was not asked for.
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
    """Compare the runs of a store with accepted ones and print what was found.

    baselines : files of accepted figures. When left out, those of ``baselines/accepted`` in the current folder, of
        which each must have its run; without such a folder, those that come with ferbench, as far as there are runs.
    tolerance : "auto" or points of accuracy that may be lost.
    Raises CheckFailed where anything fell or has no run, DataError where nothing can be checked or was tested on other
    data, UsageError where it is not clear which run belongs to a figure.
    """
    check_format(format, formats=FORMATS)
    allowed = _points(tolerance)
    home = runs_home(runs)
    own = bool(baselines) or OWN.is_dir()
    paths = baselines or sorted((OWN if own else shipped("baselines") / "accepted").glob("*.json"))
    figures = [read(path) for path in paths]
    matches = _matches(figures, results(Store(home)))
    if not any(matches):
        named = f": {', '.join(accepted.name for accepted in figures)}" if baselines else ""
        raise DataError(
            f"no run in {home} has an accepted figure{named}; train or evaluate first, or record one by "
            "`ferbench check --accept --reason …`"
        )
    findings = [
        compared(accepted, result, allowed, path.stem) if result else _without_run(accepted, path, home, own)
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
        if strange := variants.keys() - known:
            raise UsageError(
                f"{accepted.name} is stored with recipes that have no accepted figure ({', '.join(sorted(strange))}): "
                "accept them by `ferbench check --accept`, or check a folder of runs without them"
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

    allowed : points that may be lost; None asks whether chance explains the fall. Of trainings two chances
    are asked, and it fell only where neither does, so that either keeps false alarms at :data:`LEVEL`:
    people (one-sided permutation over subjects) and luck of training (Student's t of the seeds' accuracies, where
    any result has two). Of an evaluation, in which nothing is left to chance, every image must be predicted as
    it was and as surely, but for ties.
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
