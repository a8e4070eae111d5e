"""The drawn sets: prepared by drawing, so they need no source. Importing this is cheap; drawing is not."""

from collections.abc import Callable
from pathlib import Path

DRAWN = ("synth", "synth-attributes", "synth-sequences", "synth-wild")


def ensure(name: str, home: Path, report: Callable[[int, int, str], None]) -> None:
    """Draw the set ``name`` into ``home`` if it is a drawn one and not there yet."""
    if name not in DRAWN or (home / name / "card.json").is_file():
        return
    from ferbench.data.synth import prepare_drawn

    prepare_drawn(name, home, lambda done, total: report(done, total, ""))
