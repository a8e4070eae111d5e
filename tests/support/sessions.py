"""Planned sessions, as the commands that train make them."""

from collections.abc import Sequence
from pathlib import Path

from ferbench.execution.options import TrainOptions
from ferbench.execution.requests import ablation, requests_of
from ferbench.execution.session import Session, prepare


def planned(trainings: Sequence[TrainOptions], runs: Path | None = None, home: Path | None = None) -> Session:
    """The session of ``ferbench train`` or ``sweep``."""
    return prepare(requests_of(trainings), trainings[0].compute, runs, home)


def planned_ablation(
    options: TrainOptions, variants: str, seeds: int, trials: Sequence[str], runs: Path, home: Path
) -> Session:
    """The session of ``ferbench ablate``."""
    session = planned(ablation(options, variants, seeds, trials), runs, home)
    session.check_trials(trials)
    return session
