"""``ferbench train``, ``ablate``, ``sweep``, ``status``, ``retry``, ``show``, ``env``."""

import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ferbench import DEFAULT_METHOD
from ferbench.cli import options
from ferbench.cli.options import Compute, DataHome, Dataset, DryRun, Format, Overrides, Preset, Runs, Training, is_file
from ferbench.cli.output import check_plain, duration, emit
from ferbench.report.formats import check_format, names, one_of
from ferbench.text import printable

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

    from ferbench.runs.plans import Status

_REFRESH_SECONDS = 2.0  # of --watch


@options.with_groups
def train(
    context: typer.Context,
    method: Annotated[
        str, typer.Argument(help="Method to train (see `ferbench show`).", autocompletion=options.methods)
    ],
    dataset: Dataset,
    training: Training,
    compute: Compute,
    recipe: Annotated[
        str, typer.Option(help="paper, or modern: label smoothing, weight averaging, test-time flipping.")
    ] = "paper",
    seed: Annotated[int, typer.Option(help="Random seed; all other seeds are derived from it.")] = 0,
    dry_run: DryRun = False,
    runs: Runs = None,
    data_home: DataHome = None,
) -> None:
    """Train a method under a protocol: attention maps, pre-training, then every fold. Repeat the command to resume."""
    from ferbench.cli import progress
    from ferbench.execution import training as work

    trainings = [training.options(method, dataset, compute, recipe=recipe, seed=seed)]
    with progress.of_training() as display:
        work.train(trainings, display, context.obj, runs, data_home, dry_run)


@options.with_groups
def ablate(
    context: typer.Context,
    training: Training,
    compute: Compute,
    dataset: Dataset = "ckplus",
    method: Annotated[str, typer.Option(help="The method whose variants are trained.")] = DEFAULT_METHOD,
    variants: Annotated[
        str,
        typer.Option(
            help="Only these variants, such as gfnet,lfnet; the full method is always trained for comparison."
        ),
    ] = "",
    leakage: Annotated[
        bool,
        typer.Option(
            "--leakage",
            help="Measure instead how much subject leakage and choosing the epoch on the test set inflate accuracy.",
        ),
    ] = False,
    trials: Annotated[
        list[str] | None,
        typer.Option(
            "--trial",
            metavar="FIELD=VALUE",
            help="Try this hyperparameter value instead, on held-out training subjects; repeat the option for "
            "several trials, each of which changes one field.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train each variant with the seeds 0 to N-1.")] = 1,
    dry_run: DryRun = False,
    format: Annotated[str, typer.Option(help=f"Output format: {one_of(names('tables'))}.")] = "console",
    out: Annotated[Path | None, typer.Option(help="Write the tables to this file.", callback=is_file)] = None,
    runs: Runs = None,
    data_home: DataHome = None,
) -> None:
    """Ablation study: train a method and its variants under one protocol and compare them. Repeat to resume."""
    from ferbench.cli import progress
    from ferbench.errors import JobFailed
    from ferbench.execution.training import prepare_ablation

    check_format(format, out)
    shared = training.options(method, dataset, compute, leakage=leakage)
    failure: JobFailed | None = None
    with progress.bars(to_stderr=format != "console") as bars:
        session = prepare_ablation(shared, variants, seeds, trials or (), runs, data_home, bars.drawing)
        bars.plan(session, dry_run, hide_tests=bool(trials))
        if dry_run:
            return
        try:
            session.run(context.obj, bars.job, bars.outcome)
        except JobFailed as error:  # the tables show the folds that are there, and which ones are missing
            failure = error
    from ferbench.report.ablation import write_ablation
    from ferbench.report.trials import write_trials

    if trials:
        write_trials(session.protocol.name, format, out, runs)
    else:
        write_ablation(session.protocol.name, format, out, runs, session.experiments)
    if failure:
        raise failure


@options.with_groups
def sweep(
    context: typer.Context,
    plan: Annotated[
        Path, typer.Argument(help=r"TOML file with methods, datasets, seeds, \[options] and \[set].", callback=is_file)
    ],
    compute: Compute,
    dry_run: DryRun = False,
    runs: Runs = None,
    data_home: DataHome = None,
) -> None:
    """Train all combinations of methods, datasets, seeds and options in a file. Repeat the command to resume."""
    from ferbench.cli import progress
    from ferbench.execution import training as work
    from ferbench.execution.options import Compute, read_sweep

    trainings = read_sweep(plan, Compute(**vars(compute)))
    with progress.of_training() as display:
        work.train(trainings, display, context.obj, runs, data_home, dry_run)


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every two seconds until nothing runs.")] = False,
    format: Format = "console",
    runs: Runs = None,
) -> None:
    """Show the progress of training commands: jobs done, running, failed and waiting, and the time left."""
    from ferbench.files import runs_home
    from ferbench.runs import plans
    from ferbench.runs.store import Store

    check_plain(format)
    store = Store(runs_home(runs))

    def current() -> "list[Status]":
        return [plans.status(plan, store) for plan in plans.stored(store.home)]

    if format == "json":
        rows = [
            {
                "id": command.plan.id,
                "command": command.plan.command,
                "started": command.plan.started,
                "alive": command.alive,
                **command.counts,
                "running_jobs": command.running,
                "failed_jobs": command.failed,
                "seconds_left": command.seconds_left,
            }
            for command in current()
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    if not watch:
        console.print(rendered(current(), store.home))
        return
    from rich.live import Live

    with Live(console=console, refresh_per_second=4) as live:
        while True:
            commands = current()
            live.update(rendered(commands, store.home))
            if not any(command.alive for command in commands):
                return
            time.sleep(_REFRESH_SECONDS)


def rendered(commands: "list[Status]", home: Path) -> "Group | Text":
    """Return the progress of commands for the console: each command, its jobs, and what is running or has failed."""
    from rich.console import Group
    from rich.text import Text

    if not commands:
        return Text(f"no command has made runs in {home} yet")
    lines: list[Text] = []
    for command in commands:
        counts, left = command.counts, command.seconds_left
        unfinished = counts["running"] + counts["waiting"]
        state = "under way" if command.alive else "ended" if not unfinished else "stopped"
        time_left = ""
        if unfinished:
            time_left = ", time left unknown" if left is None else f", about {duration(left)} left"
        jobs = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "done")
        lines += [
            Text(printable(shlex.join(["ferbench", *command.plan.command])), style="bold"),
            Text(f"  {command.plan.id}  {state}: {jobs} of {sum(counts.values())}{time_left}"),
            *(Text(printable(f"  running  {title}")) for title in command.running),
            *(Text(printable(f"  failed   {title}: {error}")) for title, error in command.failed.items()),
        ]
    return Group(*lines)


def retry(
    plan: Annotated[
        str, typer.Argument(help="Id of a command in `ferbench status`, or how it begins; by default all.")
    ] = "",
    runs: Runs = None,
) -> None:
    """Repeat the commands whose jobs failed. Finished runs are reused."""
    from ferbench.cli.main import app
    from ferbench.files import runs_home
    from ferbench.runs.plans import stored, to_retry
    from ferbench.runs.store import Store

    store = Store(runs_home(runs))
    plans = to_retry(stored(store.home), store, plan)
    if not plans:
        print(f"nothing to try again in {store.home}: no job has failed")
    for failed in plans:
        print(f"ferbench {printable(shlex.join(failed.command))}")
        # The command line as it was typed keeps its plan; the runs home is the one that was named here.
        app([*failed.command, "--runs", str(store.home)], standalone_mode=False, obj=failed.command)


def show(
    method: Annotated[
        str, typer.Argument(help="Method to show; without one, all methods are listed.", autocompletion=options.methods)
    ] = "",
    preset: Preset = None,
    dataset: Annotated[
        str,
        typer.Option("--dataset", "-d", help="Protocol it would be trained under.", autocompletion=options.protocols),
    ] = "ckplus",
    overrides: Overrides = None,
    format: Format = "console",
) -> None:
    """Show a method: parameters, FLOPs, shapes and all hyperparameters. Without METHOD, list all methods."""
    from ferbench.execution import inspection

    if not method:
        emit(inspection.list_methods(), format)
        return
    emit(inspection.describe(method, preset or "", dataset, tuple(overrides or ())), format)


def env(format: Format = "console") -> None:
    """Print the facts for a bug report: versions, machine, commit, folders."""
    from ferbench.environment import describe
    from ferbench.files import data_home, runs_home

    facts: dict[str, Any] = {**describe(), "data_home": str(data_home()), "runs_home": str(runs_home().resolve())}
    facts["command"] = sys.executable
    emit([("environment", facts)], format)
