"""Progress bars, the plan and the closing lines of ``ferbench train`` and ``ablate``."""

import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
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
from rich.text import Text

from ferbench.text import printable

if TYPE_CHECKING:
    from ferbench.execution.executors import Outcome
    from ferbench.execution.jobs import Job
    from ferbench.execution.training import Session
    from ferbench.protocol.protocol import Protocol
    from ferbench.protocol.splits import Splits
    from ferbench.runs.plans import Standing

console = Console()


class Bars:
    """One bar for each job under way and one for all of them; a line stays for each that has ended."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.title: Callable[[Job], str] = lambda job: job.title
        self.blind = False
        self.expected: dict[str, float] = {}  # seconds of the whole that each job not ended yet stands for
        self.ended = 0.0
        self.whole: TaskID | None = None

    def expect(self, session: "Session", blind: bool = False) -> None:
        """Show a bar for all jobs, each as long as its estimate; call jobs what the session calls them.

        blind : say nothing of test sets, where something is to be chosen without them.
        """
        self.title, self.blind = session.title, blind
        self.expected = session.shares()
        if total := sum(self.expected.values()):
            self.whole = self.progress.add_task("all", total=total, text="")

    @property
    def console(self) -> Console:
        """Where lines are printed above the bars."""
        return self.progress.console

    def drawing(self, name: str):
        return self.bar(f"drawing {name}")

    def job(self, job: "Job"):
        shown, seconds = self.bar(self.title(job)), self.expected.get(job.key, 0.0)

        def report(done: int, total: int, text: str) -> None:
            shown(done, total, text)
            self._advance(self.ended + seconds * done / total)

        return report

    def _advance(self, completed: float) -> None:
        if self.whole is not None:
            self.progress.update(self.whole, completed=completed)

    def outcome(self, outcome: "Outcome") -> None:
        record, title = outcome.record, self.title(outcome.job)
        expected = self.expected.pop(outcome.job.key, 0.0)
        if outcome.reused and not expected:  # what another process has made meanwhile was expected
            line = f"[dim]reused[/dim]  {_plain(title)}  [dim]{record.key}[/dim]"
        elif record.error:
            line = f"[red]failed[/red]  {_plain(f'{title}: {record.error}')}"
        else:
            told = "" if self.blind and record.identity.kind == "fold" else f": {result_line(record.result)}"
            line = f"[green]done[/green]    {_plain(title + told)}  [dim]{record.key}[/dim]"
        self.ended += expected
        self._advance(self.ended)
        for note in record.facts.get("damage", ()):
            self.console.print(_plain(f"note: {note}"), highlight=False)
        self.console.print(line, highlight=False)

    def bar(self, title: str):
        """Return a report that shows one bar until its work is done."""
        task: TaskID | None = None

        def report(done: int, total: int, text: str) -> None:
            nonlocal task
            if task is None:
                task = self.progress.add_task(_plain(title), total=total, text="")
            self.progress.update(task, completed=done, total=total, text=_plain(text))
            if done >= total:
                self.progress.remove_task(task)
                task = None

        return report


def _plain(text: str) -> str:
    """A text of somebody's files between our own markup: shown as it is."""
    return escape(printable(text))


@contextmanager
def bars(to_stderr: bool = False) -> Iterator[Bars]:
    """Show bars with the time to go for as long as the block lasts; on stderr where stdout is for results."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ends in"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[text]}[/dim]"),
    )
    with Progress(*columns, console=Console(stderr=True) if to_stderr else console, refresh_per_second=4) as progress:
        yield Bars(progress)


_MOST_TOLD = 20  # trainings of which a command says at its end what came of each
WORDS = {
    "absent": "to train",
    "partial": "to go on with",
    "failed": "to try again",
    "done": "reused",
    "damaged": "to train again",
}


def print_plan(session: "Session", console: Console) -> None:
    """Print what will be trained, what is reused, and how long it will take; of several trainings, one row each."""
    from ferbench.data.faces import prepared
    from ferbench.protocol.audit import of_folds

    request = session.requests[0]
    splits = {job.splits.hash: (job.splits, job.faces) for job in session.jobs if job.splits is not None}.values()
    arithmetic = session.jobs[-1].identity
    seeds = sorted({request.seed for request in session.requests})
    selections = dict.fromkeys(request.selection for request in session.requests)
    for protocol in session.protocols:
        under = [one for one in session.requests if one.protocol.identifier == protocol.identifier]
        made = [(one, faces) for one, faces in splits if one.protocol.startswith(protocol.identifier)]
        methods, presets = (
            ", ".join(dict.fromkeys(names))
            for names in ([one.method.title for one in under], [one.method.preset for one in under])
        )
        told = f", preset {presets}, under {protocol.identifier}: {protocol.description}"
        console.print(
            f"[bold]{_plain(methods)}[/bold]{_plain(told)}",
            *(
                _plain(line)
                for one, faces in made
                for line in (_folds(one, protocol), f"audit: {of_folds(one, faces)}")
            ),
            *dict.fromkeys(_plain(f"note: {note}") for one, _ in made for note in one.notes),
            sep="\n",
            highlight=False,
        )
    where = "on a Ray cluster, " if session.cluster else ""
    console.print(
        f"selection: {', '.join(selections)}; seed {_ranges(seeds)}; "
        f"{where}{session.device.name}, {arithmetic.precision}, {arithmetic.engine} engine",
        *(
            _plain(f"note: {session.store.damage(key).rpartition(': ')[0]}: it is trained again")
            for key, state in session.states.items()
            if state == "damaged"
        ),
        sep="\n",
        highlight=False,
    )
    console.print(_jobs(session))
    there = prepared(session.home)
    for record in session.given:
        own = session.store.holder(record.key) == session.store
        where = "weights of your run" if own else "weights that come with ferbench"
        missing = "" if record.dataset in there else f"; {record.dataset} is not prepared here"
        console.print(
            f"{record.identity.kind}: {where}, {result_line(record.result)} [dim]{record.key}[/dim]{missing}",
            highlight=False,
        )
    for record in session.spared():
        console.print(
            f"pretrain: weights of the same recipe come with ferbench, {result_line(record.result)}; "
            f"--pretrained {record.key[:8]} takes them",
            highlight=False,
        )
    total = sum(session.shares().values())
    if total:
        folds = session.at_once.get("fold", 1)
        beside = f", {folds} folds at a time" if folds > 1 else ""
        more = "; compiling takes some minutes more" if session.device.compiles else ""
        console.print(f"about {duration(total)} in all{beside}, from a measured step{more}", highlight=False)
    if total > 12 * 3600 and session.device.name == "cpu" and request.method.preset != "tiny":
        shorter = "wide, light or tiny" if request.method.preset == "paper" else "tiny"
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


def _folds(made: "Splits", protocol: "Protocol") -> str:
    """One line: how the folds were made, what was asserted of them, and the hash of their file."""
    if made.protocol != protocol.identifier:
        return f"folds: {made.rule}; they measure data leakage and give no result; file hash {made.hash[:12]}"
    asserted = "; every sample tested once" if protocol.folds else ""
    return f"{'folds' if protocol.folds else 'split'}: {made.rule}{asserted}; file hash {made.hash[:12]}"


def _jobs(session: "Session") -> Table:
    """One row for each job of a single training; else one for all folds of each."""
    from ferbench.execution.run_job import test_images, training_images

    table = Table(box=None, pad_edge=False)
    for name in ("job", "images", "epochs", "state", "estimate", "run"):
        table.add_column(name, justify="right" if name in ("images", "epochs", "estimate") else "left")
    groups: dict[str, list[Job]] = {}
    for job in session.jobs:
        together = job.kind == "fold" and len(session.requests) > 1
        groups.setdefault(job.identity.experiment if together else job.key, []).append(job)
    for name, jobs in groups.items():
        states = Counter(_state(session, job) for job in jobs)
        images = sorted({test_images(job) if job.made_from else training_images(job) for job in jobs})
        title = session.title(jobs[0])
        table.add_row(
            _plain(title if len(jobs) == 1 else f"{title} to {jobs[-1].identity.fold}"),
            f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,}–{images[-1]:,}",
            str(jobs[0].epochs or ""),
            ", ".join(f"{count} {state}" if len(jobs) > 1 else state for state, count in states.items()),
            duration(sum(session.seconds[job.key] for job in jobs))
            if any(session.seconds[job.key] for job in jobs)
            else "",
            f"[dim]{name}[/dim]",
        )
    return table


def _state(session: "Session", job: "Job") -> str:
    """What will become of a job. A best-test run costs little where the epochs of its training are kept."""
    from ferbench.execution.run_job import kept_epochs

    if not job.made_from or session.states[job.key] == "done":
        return WORDS[session.states[job.key]]
    trained = session.states[job.made_from] == "done" and not kept_epochs(job, session.store)
    return "to train again, its epochs were not kept" if trained else "to test"


def carry_out(session: "Session", bars: Bars, blind: bool = False) -> None:
    """Make the jobs of a session under bars, while its plan lies in the store for `ferbench status`.

    blind : see :meth:`Bars.expect`. Raises JobFailed at the end if any failed.
    """
    from ferbench.execution.training import train_all
    from ferbench.execution.workers import is_worker
    from ferbench.runs.plans import under_way

    bars.expect(session, blind)
    plan = nullcontext() if is_worker() else under_way(session.store.home, session.plan(sys.argv[1:]))
    with plan:
        train_all(session, bars.job, bars.outcome)


def print_end(session: "Session") -> None:
    """Say what came of whole trainings, and where the figures are."""
    from ferbench.report.render import headlines

    for protocol in session.protocols:
        if len(session.experiments) <= _MOST_TOLD:
            for line in headlines(session.store, protocol.name, session.experiments):
                console.print(printable(line), highlight=False, markup=False)
        console.print(f"see: ferbench report --dataset {protocol.name}", highlight=False, markup=False)


def standings(found: "list[Standing]", home: Path) -> Group | Text:
    """How far commands are: what each is, its jobs, and below what runs and what failed."""
    if not found:
        return Text(f"no command has made runs in {home} yet")
    parts: list[Text] = []
    for one in found:
        counts, left = one.counts, one.seconds_left
        open_jobs = counts["running"] + counts["waiting"]
        state = "under way" if one.alive else "ended" if not open_jobs else "stopped"
        to_go = "" if not open_jobs else ", time left unknown" if left is None else f", about {duration(left)} left"
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "done")
        parts += [
            Text(printable(shlex.join(["ferbench", *one.plan.command])), style="bold"),
            Text(f"  {one.plan.id}  {state}: {told} of {sum(counts.values())}{to_go}"),
            *(Text(printable(f"  running  {title}")) for title in one.running),
            *(Text(printable(f"  failed   {title}: {error}")) for title, error in one.failed.items()),
        ]
    return Group(*parts)


def result_line(result: dict) -> str:
    """Return a job's summary in a few words."""
    if "accuracy" in result:
        return f"{result['accuracy']:.2%} of {result['images']} test images"
    if "validation_accuracy" in result:
        return f"{result['validation_accuracy']:.2%} of {result['validation_images']:,} validation images"
    return ", ".join(f"{part} {facts['validation_accuracy']:.1%}" for part, facts in result.items()) or "trained"


def duration(seconds: float) -> str:
    """``75`` → ``1 min 15 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


@contextmanager
def counter(title: str):
    """Show one bar that counts images; gives ``tick(done, total)``."""
    with bars() as shown:
        report = shown.bar(title)
        yield lambda done, total: report(done, total, "")
