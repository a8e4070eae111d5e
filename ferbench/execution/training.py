"""What ``ferbench train``, ``ablate`` and ``sweep`` do. Importing this loads neither torch nor pandas.

A typing error is refused by :func:`~ferbench.execution.requests.requests_of` before anything heavy is loaded.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Protocol as Interface

from ferbench.execution.options import TrainOptions
from ferbench.execution.requests import ablation, requests_of
from ferbench.training.schedule import Progress

if TYPE_CHECKING:
    from ferbench.execution.jobs import Job
    from ferbench.execution.local import Outcome
    from ferbench.execution.session import Session


class Display(Interface):
    """What shows a training: its plan, the progress of drawing a dataset and of each job, and how a job has ended."""

    def drawing(self, name: str) -> Progress: ...

    def plan(self, session: "Session", dry_run: bool) -> None: ...

    def job(self, job: "Job") -> Progress: ...

    def outcome(self, outcome: "Outcome") -> None: ...


def train(
    trainings: Sequence[TrainOptions],
    display: Display,
    command: list[str],
    runs: Path | None = None,
    home: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Plan trainings (see :func:`prepare_training`), show the plan, and run it unless ``dry_run``.

    command : the words of the command line after ``ferbench``. Raises JobFailed at the end if any job failed.
    """
    session = prepare_training(trainings, runs, home, display.drawing)
    display.plan(session, dry_run)
    if not dry_run:
        session.run(command, display.job, display.outcome)


def prepare_training(
    trainings: Sequence[TrainOptions],
    runs: Path | None = None,
    home: Path | None = None,
    drawing: Callable[[str], Progress] = lambda name: lambda done, total, text: None,
) -> "Session":
    """Return a planned session for one or more trainings, which all run where the first one says.

    runs, home, drawing : see :func:`ferbench.execution.session.prepare`. Raises what that and ``requests_of`` raise.
    """
    requests = requests_of(trainings)
    from ferbench.execution.session import prepare

    return prepare(requests, trainings[0].compute, runs, home, drawing)


def prepare_ablation(
    options: TrainOptions,
    variants: str,
    seeds: int,
    trials: Sequence[str],
    runs: Path | None = None,
    home: Path | None = None,
    drawing: Callable[[str], Progress] = lambda name: lambda done, total, text: None,
) -> "Session":
    """Return a planned session for the trainings of :func:`~ferbench.execution.requests.ablation`.

    Raises UsageError also for a trial that changes nothing.
    """
    session = prepare_training(ablation(options, variants, seeds, trials), runs, home, drawing)
    session.check_trials(trials)
    return session
