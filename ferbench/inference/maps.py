"""How often attention maps point at the eyes and the mouth, and figures of them like Figure 6 of the paper."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ferbench.data import faces as prepared_sets
from ferbench.data import synthetic
from ferbench.data.faces import Faces
from ferbench.errors import DataError, UsageError
from ferbench.files import data_home
from ferbench.inference.models import open_run
from ferbench.inference.shipped import ATTENTION
from ferbench.labels import EMOTIONS
from ferbench.methods.interface import HasAttentionMaps
from ferbench.methods.recipes import family_of


@dataclass(frozen=True)
class PointingResult:
    """The share of ``images`` whose map of a part has its maximum on the part, and the share expected by chance."""

    part: str
    images: int
    share: float
    chance: float


@dataclass(frozen=True)
class MapsResult:
    """Of one attention map generator (AMG) on one prepared dataset. run : of the AMG. figures : files drawn."""

    run: str
    dataset: str
    pointing: list[PointingResult]
    figures: list[Path]


def evaluate_maps(
    run: str, preset: str, dataset: str, out: Path | None, faces_of_each: int, runs: Path | None, home: Path | None
) -> MapsResult:
    """Compute the maps of all images of a dataset by the AMG of a finished run, or by the shipped one of ``preset``.

    out : folder for the figure, PNG and SVG, with ``faces_of_each`` faces for each expression; None: no figure.
    The parts of aligned and of drawn faces lie on the template (``data.align.TEMPLATE``), whose regions are therefore
    the ground truth of the pointing game.
    Raises UsageError where there is no such run or it has no AMG, DataError for a set that is not prepared or,
    where a figure is wanted, has no expressions.
    """
    model = open_run(run, preset, runs, ATTENTION)
    synthetic.ensure(dataset, data_home(home))
    faces = prepared_sets.load(dataset, data_home(home))
    import torch

    from ferbench.report.figures import draw_maps
    from ferbench.training import pointing

    record = model.record
    family = family_of(record)
    if not isinstance(family, HasAttentionMaps):
        raise UsageError(f"run {record.key} is of {record.identity.method}, which has no attention maps")
    key, maps = family.maps(record, model.store, faces.images)
    results = []
    for part, part_maps in maps.items():
        share = float(pointing.on_part(torch.from_numpy(part_maps), part).double().mean())
        results.append(PointingResult(part, len(faces), share, pointing.chance(part)))
    shown = np.stack(list(maps.values()), axis=1)
    figures = [] if out is None else draw_maps(_shown(faces, shown, faces_of_each), out / f"{dataset}-maps")
    return MapsResult(key, dataset, results, figures)


def _shown(faces: Faces, maps: np.ndarray, count: int) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Images with their maps by expression: for each the last frames of its first subjects, in the table's order."""
    table = faces.samples.reset_index(drop=True)
    shown = {}
    for emotion in EMOTIONS:
        rows = table[table["label"] == emotion]
        subjects = rows.groupby(rows["subject"].where(rows["subject"] != "", rows["id"]), sort=False)
        if last := [frames["frame"].idxmax() for _, frames in subjects][:count]:
            shown[emotion] = [(np.array(faces.images[row]), maps[row]) for row in last]
    if not shown:
        raise DataError(f"{faces.name} has no expressions to show maps of: leave out --out")
    return shown
