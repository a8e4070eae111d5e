"""Attention maps looked at: how often they point at the eyes and the mouth, and pictures in the manner of Figure 6."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ferbench import DEFAULT_METHOD
from ferbench.data import faces as prepared_sets
from ferbench.data import synthetic
from ferbench.data.faces import Faces
from ferbench.errors import DataError, UsageError
from ferbench.files import data_home, runs_home
from ferbench.labels import EMOTIONS
from ferbench.methods.recipes import family_of, resolve
from ferbench.report.drawings import draw_maps
from ferbench.runs.record import Record
from ferbench.runs.store import Store, shipped_run, shipped_runs
from ferbench.training import pointing


@dataclass(frozen=True)
class Pointed:
    """How often the maximum of a part's map lies on the part: shares of ``images``, and what chance would give."""

    part: str
    images: int
    hits: float
    chance: float


@dataclass(frozen=True)
class Look:
    """What was found of one AMG on one prepared dataset. run : of the AMG. figures : files that were drawn."""

    run: str
    dataset: str
    pointed: list[Pointed]
    figures: list[Path]


def look(
    run: str, preset: str, dataset: str, out: Path | None, faces_of_each: int, runs: Path | None, home: Path | None
) -> Look:
    """Make the maps of all images of a dataset by the AMG of a finished run, or by the shipped one of ``preset``.

    out : folder for the figure, PNG and SVG, with ``faces_of_each`` faces for each expression; None: none is drawn.
    Aligned faces have their parts on the template (``data.align.TEMPLATE``), and drawn ones are drawn there, so
    the pointing game is played against the template's regions.
    Raises UsageError where there is no such run or it has no AMG, DataError for a set that is not prepared or,
    where a figure is wanted, has no expressions.
    """
    record, store = _chosen(run, preset, runs)
    synthetic.ensure(dataset, data_home(home))
    faces = prepared_sets.load(dataset, data_home(home))
    key, maps = family_of(record).maps(record, store, faces.images)
    pointed = [
        Pointed(
            part, len(faces), float(pointing.hits(torch.from_numpy(own), part).double().mean()), pointing.chance(part)
        )
        for part, own in maps.items()
    ]
    shown = np.stack(list(maps.values()), axis=1)
    figures = [] if out is None else draw_maps(_shown(faces, shown, faces_of_each), out / f"{dataset}-maps")
    return Look(key, dataset, pointed, figures)


def _chosen(run: str, preset: str, runs: Path | None) -> tuple[Record, Store]:
    """The run that was named, or the shipped one that learned the attention maps of a preset."""
    if run:
        store = Store(runs_home(runs))
        record = store.find(run)
        return record, store.holder(record.key)
    method = resolve(DEFAULT_METHOD, preset, "")
    given = shipped_run(kind="attention", preset=method.family.owner("attention", method)[1])
    if given is None:
        raise UsageError(f"no attention maps come with ferbench for the preset {preset!r}: name a run of your own")
    return given, shipped_runs()


def _shown(faces: Faces, maps: np.ndarray, count: int) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Images with their maps by expression: for each the last frames of its first subjects, in the table's order."""
    table = faces.samples.reset_index(drop=True)
    found = {}
    for emotion in EMOTIONS:
        rows = table.index[table["label"] == emotion]
        own = table.loc[rows].groupby(table.loc[rows, "subject"].where(table["subject"] != "", table["id"]), sort=False)
        last = [group["frame"].idxmax() for _, group in own][:count]
        if last:
            found[emotion] = [(np.array(faces.images[row]), maps[row]) for row in last]
    if not found:
        raise DataError(f"{faces.name} has no expressions to show maps of: leave out --out")
    return found
