"""The figures that ``ferbench check`` compares with: their files, and how they are accepted."""

import json
import re
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import AliasChoices, Field, model_validator

from ferbench import DEFAULT_METHOD, __version__, metrics, statistics
from ferbench.errors import DataError, UsageError
from ferbench.files import runs_home, sha256_of, write_text
from ferbench.report.compare import Result, results
from ferbench.report.tested_runs import Level
from ferbench.runs.store import Store
from ferbench.schema import Schema, read_json, validated

OWN = Path("baselines") / "accepted"  # of the current folder, which is a project of the user's


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
    reasons: list[Reason]  # the last one is why it is as it is

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """One figure for each image, and each image once."""
        n = len(self.ids)
        if not n or len(set(self.ids)) < n or len(self.subjects) != n:
            raise ValueError("ids are no names of images, each once, with a subject each")
        if (
            len(self.correct) != len(self.seeds)
            or not self.correct
            or any(len(correct) != n for correct in self.correct)
        ):
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
                    "prediction": np.where(np.array(correct, dtype=bool), truths, ""),
                }
            )
            for correct in self.correct
        ]


def read(path: Path) -> Accepted:
    """Read a file of accepted figures. Raises DataError for one that is none."""
    return validated(Accepted, read_json(path), path)


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
    exact = [OWN / f"{name}-{result.variant}.json" for name, result in zip(names, stored, strict=True)]
    return [
        path if count[name] > 1 or path.is_file() else OWN / f"{name}.json"
        for name, path in zip(names, exact, strict=True)
    ]


def _file_name(result: Result) -> str:
    kind = ["evaluation"] if result.evaluation else []
    best = [result.selection] if result.selection != "last" else []
    name = "-".join(filter(None, [result.protocol.partition("@")[0], result.method, result.preset, *best, *kind]))
    return re.sub(r"[/\\:]|^\.+", "_", name)


def accepted_of(result: Result, why: str, reasons: list[Reason]) -> Accepted:
    frames = [hashed(frame, result.data).sort_values("id").reset_index(drop=True) for frame in result.frames]
    first = frames[0]
    accuracy = float(statistics.paired(frames, frames).first.mean())
    kept: dict[str, Any] = {}
    if result.evaluation:
        kept["predictions"] = [result.classes.index(name) for name in first["prediction"]]
        kept["margins"] = [round(float(margin), 4) for margin in margins(first, result.classes)]
    return Accepted(
        method=result.method,
        title=result.title,
        preset=result.preset,
        protocol=result.protocol,
        variant=result.variant,
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
        correct=[metrics.correct(frame).astype(int).tolist() for frame in frames],
        **kept,
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
