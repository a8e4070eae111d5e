"""``ferbench train``, ``ablate``, ``sweep``, ``show``, ``env``."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ferbench import DEFAULT_METHOD
from ferbench.cli import options
from ferbench.cli.formats import DataHome, Format, Runs, emit, is_file
from ferbench.cli.options import Compute, Dataset, DryRun, Overrides, Preset, Training
from ferbench.report.formats import check_format, names, one_of


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
    from ferbench.execution.ablation import prepare_ablation
    from ferbench.report.ablation import write_ablation
    from ferbench.report.trials import write_trials

    check_format(format, out)
    shared = training.options(method, dataset, compute, leakage=leakage)
    failure: JobFailed | None = None
    with progress.bars(to_stderr=format != "console") as bars:
        session = prepare_ablation(
            shared, variants, seeds, trials or (), runs=runs, home=data_home, drawing=bars.drawing
        )
        bars.plan(session, dry_run, hide_tests=bool(trials))
        if dry_run:
            return
        try:
            session.run(context.obj, bars.job, bars.outcome)
        except JobFailed as error:  # the tables show the folds that are there, and which ones are missing
            failure = error
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
    from ferbench.execution.options import Compute
    from ferbench.execution.sweep import read_sweep

    trainings = read_sweep(plan, Compute(**vars(compute)))
    with progress.of_training() as display:
        work.train(trainings, display, context.obj, runs, data_home, dry_run)


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
