"""``ferbench train``, ``ferbench show``, ``ferbench env``."""

import sys
from typing import Annotated, Any

import typer

from ferbench.cli import completion, shared
from ferbench.cli.formats import DataHome, Format, Overrides, Preset, Runs, emit

Dataset = Annotated[
    str,
    typer.Option(
        "--dataset",
        "-d",
        help="Name of a protocol (see `ferbench protocol list`), or a protocol file.",
        autocompletion=completion.protocols,
    ),
]


def train(
    method: Annotated[
        str, typer.Argument(help="Method to train (see `ferbench show`).", autocompletion=completion.methods)
    ],
    dataset: Dataset,
    preset: Preset = None,
    recipe: shared.Beyond = "paper",
    folds: shared.Folds = "",
    rule: shared.Rule = None,
    folds_file: shared.FoldsFile = None,
    seed: Annotated[int, typer.Option(help="Random seed; all other seeds are derived from it.")] = 0,
    epochs: shared.Epochs = None,
    selection: shared.Selection = "last",
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    engine: shared.Engine = "auto",
    threads: shared.Threads = None,
    jobs: shared.Jobs = "auto",
    executor: shared.Executor = "local",
    address: shared.Address = "",
    gpus_per_job: shared.GpusPerJob = 0.0,
    no_pretrain: shared.NoPretrain = False,
    amg: shared.Amg = "",
    pretrained: shared.Pretrained = "",
    overrides: Overrides = None,
    dry_run: shared.DryRun = False,
    runs: Runs = None,
    data_home: DataHome = None,
) -> None:
    """Train a method under a protocol: attention maps, pre-training, then every fold. Repeat the command to resume."""
    from ferbench.cli import progress
    from ferbench.execution.training import TrainOptions, prepare_training

    options = TrainOptions(
        method=method,
        dataset=dataset,
        preset=preset,
        recipe=recipe,
        folds=folds,
        rule=rule,
        folds_file=folds_file,
        seed=seed,
        epochs=epochs,
        selection=selection,
        device=device,
        precision=precision,
        engine=engine,
        threads=threads,
        pretrain=not no_pretrain,
        amg=amg,
        pretrained=pretrained,
        overrides=tuple(overrides or ()),
        jobs=jobs,
        executor=executor,
        address=address,
        gpus_per_job=gpus_per_job,
    )
    with progress.bars() as bars:
        session = prepare_training([options], options.words("train", method), runs, data_home, bars.drawing)
        progress.print_plan(session, bars.console)
        if dry_run:
            return
        progress.carry_out(session, bars)
    progress.print_end(session)


def show(
    method: Annotated[
        str,
        typer.Argument(help="Method to show; without one, all methods are listed.", autocompletion=completion.methods),
    ] = "",
    preset: Preset = None,
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset", "-d", help="Protocol it would be trained under.", autocompletion=completion.protocols
        ),
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
