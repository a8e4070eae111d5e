"""The drawn sets: prepared by drawing, so they need no source. Importing this is cheap; drawing is not."""

from collections.abc import Callable
from pathlib import Path

from ferbench.files import alone

DRAWN = ("synth", "synth-attributes", "synth-sequences", "synth-wild")


def ensure(name: str, home: Path, report: Callable[[int, int, str], None]) -> None:
    """Draw the set ``name`` into ``home`` if it is a drawn one and not there yet."""
    card = home / name / "card.json"
    if name not in DRAWN or card.is_file():
        return
    from ferbench.data.synth import prepare_drawn

    with alone(home / f".{name}.lock"):
        if not card.is_file():  # or another process has drawn it meanwhile
            prepare_drawn(name, home, lambda done, total: report(done, total, ""))
