"""Runs cases of all targets and counts how they end."""

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.guard import Watch
from fuzz.targets import Target, targets

GOOD = ("read", "refused")
KEPT = 5  # findings of a target that are kept in full


@dataclass
class Tally:
    """What came of one target. findings : outcome, what is known of it, and the file that does it."""

    name: str
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    findings: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    @property
    def cases(self) -> int:
        return self.outcomes.total()


def campaign(
    cases: int, seed: int, home: Path, only: str = "", told: Callable[[Tally], None] = lambda tally: None
) -> list[Tally]:
    """Run so many cases in all, shared out among the targets whose names hold ``only``. Equal seeds, equal files."""
    (home / "outside").mkdir(parents=True)
    (home / "outside" / "secret").write_text("nobody may read this")
    inside = home / "inside"
    (inside / "tmp").mkdir(parents=True)
    tempfile.tempdir = str(inside / "tmp")
    found = targets(inside, only)
    whole = sum(target.share for target in found)
    watch = Watch(inside)
    tallies = []
    for target in found:
        tallies.append(_run(target, max(10, round(cases * target.share / whole)), seed, watch))
        told(tallies[-1])
    return tallies


def files(target: Target, cases: int, seed: int) -> Iterable[bytes]:
    """The files of a target: its good ones, then damaged ones."""
    rng = random.Random(f"{seed} {target.name}")
    for number in range(cases):
        seeded = target.seeds[number % len(target.seeds)]
        yield seeded if number < len(target.seeds) else target.mutate(seeded, target.seeds, rng)


def _run(target: Target, cases: int, seed: int, watch: Watch) -> Tally:
    tally = Tally(target.name)
    start = time.perf_counter()
    for content in files(target, cases, seed):
        outcome, what = watch.run(target.read, content)
        tally.outcomes[outcome] += 1
        if outcome not in GOOD and len(tally.findings) < KEPT:
            tally.findings.setdefault(f"{outcome}: {what}", (what, content))
    tally.seconds = time.perf_counter() - start
    return tally
