"""Synthetic faces: people with identities and action units, drawn as images. This module is cheap to import."""

from collections.abc import Callable
from pathlib import Path

from ferbench.files import exclusive

SYNTHETIC = ("synth", "synth-attributes", "synth-sequences", "synth-wild")  # datasets that need no source


def ensure(name: str, home: Path, progress: Callable[[int, int, str], None] = lambda done, total, text: None) -> None:
    """Prepare the dataset ``name`` in the data home ``home`` if it is a synthetic one and not there yet."""
    card = home / name / "card.json"
    if name not in SYNTHETIC or card.is_file():
        return
    from ferbench.data.synthetic.sets import prepare_synthetic

    with exclusive(home / f".{name}.lock"):
        if not card.is_file():  # another process may have prepared it meanwhile
            prepare_synthetic(name, home, lambda done, total: progress(done, total, ""))
