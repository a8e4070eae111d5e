"""Progress bars, the plan and the final lines of the commands that train."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ferbench.cli.output import duration
from ferbench.text import printable

if TYPE_CHECKING:
    from ferbench.execution.jobs import Job
    from ferbench.execution.local import Outcome
    from ferbench.execution.session import Session
    from ferbench.protocol.protocol import Protocol
    from ferbench.protocol.splits import Splits

console = Console()

_MAX_RESULT_LINES = 20  # trainings whose results are printed at the end of a command
_LONG_START = 60.0  # seconds before the first step of a training, from which on a plan mentions them
# Of compiled steps, the longest compilation in seconds and the smallest share of a step's time that was saved: `tiny`
# and `light` on one thread of an Intel Xeon in bf16 (reports/speed.md, records 1699f4ef and b141bb57).
_COMPILATION, _SAVED = 122.0, 0.26
_STATES = {  # what a plan prints for the state of a run
    "absent": "to train",
    "partial": "to go on with",
    "failed": "to try again",
    "done": "reused",
    "damaged": "to train again",
}


class Bars:
    """A progress bar for each running job and one for all jobs; a line stays for each job that has ended."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.session: Session | None = None  # that runs
        self.hide_tests = False
        self.title: Callable[[Job], str] = lambda job: job.title
        self.expected: dict[str, float] = {}  # seconds that each job which has not ended adds to the whole
        self.ended = 0.0
        self.total: TaskID | None = None

    def plan(self, session: "Session", dry_run: bool, hide_tests: bool = False) -> None:
        """Print the plan and show a bar for all jobs, each as long as its estimate, unless ``dry_run``.

        hide_tests : print no results of test sets, since something is to be chosen without them.
        """
        print_plan(session, self.console)
        if dry_run:
            return
        self.session, self.title, self.hide_tests = session, session.title, hide_tests
        self.expected = session.durations()
        if seconds := sum(self.expected.values()):
            self.total = self.progress.add_task("all", total=seconds, text="")

    @property
    def console(self) -> Console:
        """Where lines are printed above the bars."""
        return self.progress.console

    def drawing(self, name: str):
        """Return the progress callback for a synthetic dataset."""
        return self.bar(f"drawing {name}")

    def job(self, job: "Job"):
        """Return the progress callback of a job."""
        update, seconds = self.bar(self.title(job)), self.expected.get(job.key, 0.0)

        def progress(done: int, total: int, text: str) -> None:
            update(done, total, text)
            self._advance(self.ended + seconds * done / total)

        return progress

    def _advance(self, completed: float) -> None:
        if self.total is not None:
            self.progress.update(self.total, completed=completed)

    def outcome(self, outcome: "Outcome") -> None:
        """Print the line of a job that has ended."""
        record, title = outcome.record, self.title(outcome.job)
        expected = self.expected.pop(outcome.job.key, 0.0)
        if outcome.reused and not expected:  # a run that another process has finished meanwhile was expected
            line = f"[dim]reused[/dim]  {_plain(title)}  [dim]{record.key}[/dim]"
        elif record.error:
            line = f"[red]failed[/red]  {_plain(f'{title}: {record.error}')}"
        else:
            hidden = self.hide_tests and record.identity.kind == "fold"
            result = "" if hidden else f": {result_line(record.result)}"
            line = f"[green]done[/green]    {_plain(title + result)}  [dim]{record.key}[/dim]"
        self.ended += expected
        self._advance(self.ended)
        for note in record.facts.get("damage", ()):
            self.console.print(_plain(f"note: {note}"), highlight=False)
        self.console.print(line, highlight=False)

    def bar(self, title: str):
        """Return a progress callback that shows one bar until its work is done."""
        task: TaskID | None = None

        def progress(done: int, total: int, text: str) -> None:
            nonlocal task
            if task is None:
                task = self.progress.add_task(_plain(title), total=total, text="")
            self.progress.update(task, completed=done, total=total, text=_plain(text))
            if done >= total:
                self.progress.remove_task(task)
                task = None

        return progress


def _plain(text: str) -> str:
    """Return a text that may come from any file, without markup and control characters."""
    return escape(printable(text))


@contextmanager
def bars(to_stderr: bool = False) -> Iterator[Bars]:
    """Show progress bars for as long as the block lasts; on stderr if stdout is for results."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ends in"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[text]}[/dim]"),
    )
    shown_on = Console(stderr=True) if to_stderr else console
    live = shown_on.is_terminal or shown_on.is_jupyter  # elsewhere rich would print an empty line at the end
    with Progress(*columns, console=shown_on, refresh_per_second=4, disable=not live) as progress:
        yield Bars(progress)


@contextmanager
def counter(title: str, to_stderr: bool = False):
    """Show one bar that counts images; gives ``tick(done, total)``."""
    with bars(to_stderr) as shown:
        progress = shown.bar(title)
        yield lambda done, total: progress(done, total, "")


@contextmanager
def of_training() -> Iterator[Bars]:
    """Show a training: its plan, progress bars for as long as the block lasts, then the results."""
    with bars() as shown:
        yield shown
    if shown.session is not None:
        print_results(shown.session)


def print_plan(session: "Session", console: Console) -> None:
    """Print what will be trained, what is reused and how long it takes; for several trainings, one row for each."""
    from ferbench.data.faces import prepared
    from ferbench.protocol.leakage import of_folds

    requests = session.graph.requests
    all_splits = {job.splits.hash: (job.splits, job.faces) for job in session.jobs if job.splits}.values()
    for protocol in session.protocols:
        under = [request for request in requests if request.protocol.identifier == protocol.identifier]
        folds = [(splits, faces) for splits, faces in all_splits if splits.protocol.startswith(protocol.identifier)]
        methods = ", ".join(dict.fromkeys(request.method.title for request in under))
        presets = ", ".join(dict.fromkeys(request.method.preset for request in under))
        console.print(
            f"[bold]{_plain(methods)}[/bold]"
            + _plain(f", preset {presets}, under {protocol.identifier}: {protocol.description}"),
            *(
                _plain(line)
                for splits, faces in folds
                for line in (_folds_line(splits, protocol), f"audit: {of_folds(splits, faces)}")
            ),
            *dict.fromkeys(_plain(f"note: {note}") for splits, _ in folds for note in splits.notes),
            sep="\n",
            highlight=False,
        )
    schedule, identity = session.schedule, session.jobs[-1].identity
    selections = ", ".join(dict.fromkeys(request.selection for request in requests))
    seeds = _ranges(sorted({request.seed for request in requests}))
    place = f"{'on a Ray cluster, ' if schedule.cluster else ''}{schedule.device.name}"
    console.print(
        f"selection: {selections}; seed {seeds}; {place}, {identity.precision}, {identity.engine} engine",
        *(
            _plain(f"note: {session.store.damage(key).rpartition(': ')[0]}: it is trained again")
            for key, state in session.states.items()
            if state == "damaged"
        ),
        sep="\n",
        highlight=False,
    )
    console.print(_job_table(session))
    datasets = prepared(session.home)
    for record in session.graph.existing:
        is_shipped = session.store.holder(record.key) != session.store
        origin = "weights that come with ferbench" if is_shipped else "weights of your run"
        missing = "" if record.dataset in datasets else f"; {record.dataset} is not prepared here"
        console.print(
            f"{record.identity.kind}: {origin}, {result_line(record.result)} [dim]{record.key}[/dim]{missing}",
            highlight=False,
        )
    for record in session.shipped_alternatives():
        console.print(
            f"pretrain: weights of the same recipe come with ferbench, {result_line(record.result)}; "
            f"--pretrained {record.key[:8]} takes them",
            highlight=False,
        )
    _print_duration(session, console)


def _compilation(session: "Session") -> str:
    """What compiling adds to the time of a plan, and from how many folds on it pays on a CPU."""
    folds = [session.seconds[job.key] for job in session.jobs if job.kind == "fold"]
    if session.schedule.device.name != "cpu" or not folds:
        return "; compiling takes some minutes more"
    pays = ceil(_COMPILATION / (_SAVED * max(folds)))
    return (
        f"; compiling takes about {duration(_COMPILATION)} more where its code is not on disk yet, and pays from "
        f"{pays} {'fold' if pays == 1 else 'folds'} on (measured for tiny and light in bf16)"
    )


def _print_duration(session: "Session", console: Console) -> None:
    schedule, preset = session.schedule, session.graph.requests[0].method.preset
    total = sum(session.durations().values())
    if total:
        folds = schedule.parallel.get("fold", 1)
        parallel = f", {folds} folds at a time" if folds > 1 else ""
        compiling = _compilation(session) if schedule.device.compiles else ""
        console.print(f"about {duration(total)} in all{parallel}, from a measured step{compiling}", highlight=False)
    starts: dict[str, list[Job]] = {}
    for job in session.jobs:
        if session.cold_start.get(job.key, 0.0) >= _LONG_START:
            starts.setdefault(job.kind, []).append(job)
    for jobs in starts.values():
        count = f" and {len(jobs) - 1} more, each" if len(jobs) > 1 else ""
        console.print(
            f"before the first step of {_plain(session.title(jobs[0]))}{count}: attention maps, about "
            f"{duration(max(session.cold_start[job.key] for job in jobs))} of the estimate",
            highlight=False,
        )
    if total > 12 * 3600 and schedule.device.name == "cpu" and preset != "tiny":
        shorter = "wide, light or tiny" if preset == "paper" else "tiny"
        console.print(f"[yellow]long for a CPU: --preset {shorter} would do; nothing was changed by itself[/yellow]")


def _ranges(numbers: list[int]) -> str:
    """``[0, 1, 2, 5]`` → ``0–2, 5``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def _folds_line(splits: "Splits", protocol: "Protocol") -> str:
    """Return one line: the rule of the folds, what was asserted about them, and the hash of their file."""
    if splits.protocol != protocol.identifier:
        return f"folds: {splits.rule}; they measure data leakage and give no result; file hash {splits.hash[:12]}"
    asserted = "; every sample tested once" if protocol.folds else ""
    return f"{'folds' if protocol.folds else 'split'}: {splits.rule}{asserted}; file hash {splits.hash[:12]}"


def _job_table(session: "Session") -> Table:
    """Return a table with one row for each job of a single training; of several, one row for all folds of each."""
    table = Table(box=None, pad_edge=False)
    for name in ("job", "images", "epochs", "state", "estimate", "run"):
        table.add_column(name, justify="right" if name in ("images", "epochs", "estimate") else "left")
    rows: dict[str, list[Job]] = {}
    for job in session.jobs:
        grouped = job.kind == "fold" and len(session.graph.requests) > 1
        rows.setdefault(job.identity.experiment if grouped else job.key, []).append(job)
    for name, jobs in rows.items():
        states = Counter(_state(session, job) for job in jobs)
        images = sorted({job.test_images if job.epochs_run else job.training_images for job in jobs})
        title, seconds = session.title(jobs[0]), [session.seconds[job.key] for job in jobs]
        table.add_row(
            _plain(title if len(jobs) == 1 else f"{title} to {jobs[-1].identity.fold}"),
            f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,}–{images[-1]:,}",
            str(jobs[0].epochs or ""),
            ", ".join(f"{count} {state}" if len(jobs) > 1 else state for state, count in states.items()),
            duration(sum(seconds)) if any(seconds) else "",
            f"[dim]{name}[/dim]",
        )
    return table


def _state(session: "Session", job: "Job") -> str:
    """Return what will be done with a job. A best-test run costs little if the epochs of its training are kept."""
    from ferbench.execution.jobs import kept_epochs

    if not job.epochs_run or session.states[job.key] == "done":
        return _STATES[session.states[job.key]]
    deleted = session.states[job.epochs_run] == "done" and not kept_epochs(job, session.store)
    return "to train again, its epochs were not kept" if deleted else "to test"


def print_results(session: "Session") -> None:
    """Print the results of complete trainings, and the command that reports them."""
    from ferbench.report.conclusions import headlines

    for protocol in session.protocols:
        if len(session.experiments) <= _MAX_RESULT_LINES:
            folds = [job.key for job in session.jobs if job.kind == "fold" and job.request.protocol == protocol]
            for line in headlines(session.store, protocol.name, folds):
                console.print(printable(line), highlight=False, markup=False)
        console.print(f"see: ferbench report --dataset {protocol.name}", highlight=False, markup=False)


def result_line(result: dict[str, Any]) -> str:
    """Return the result of a job in a few words."""
    if "accuracy" in result:
        return f"{result['accuracy']:.2%} of {result['images']} test images"
    if "validation_accuracy" in result:
        return f"{result['validation_accuracy']:.2%} of {result['validation_images']:,} validation images"
    return ", ".join(f"{part} {facts['validation_accuracy']:.1%}" for part, facts in result.items()) or "trained"
