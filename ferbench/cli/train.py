"""``ferbench train``, ``ferbench show``, ``ferbench env``."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ferbench.cli.formats import DataHome, Format, Overrides, Preset, Runs, emit

Dataset = Annotated[
    str,
    typer.Option("--dataset", "-d", help="Protocol's name, or a protocol file (see `ferbench protocol list`)."),
]


def train(
    method: Annotated[str, typer.Argument(help="Method to train (see `ferbench show`).")],
    dataset: Dataset,
    preset: Preset = None,
    recipe: Annotated[
        str, typer.Option(help="paper, or modern: cosine rate, label smoothing, averaged weights, mirrored tests.")
    ] = "paper",
    folds: Annotated[str, typer.Option(help="Only these folds: 03 or 01,04 or 01-05.")] = "",
    rule: Annotated[str | None, typer.Option(help="Another fold rule: step, block, random or file.")] = None,
    folds_file: Annotated[Path | None, typer.Option(help="Fold file for --rule file.")] = None,
    seed: Annotated[int, typer.Option(help="The one seed; all others follow from it.")] = 0,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of the last stage; short for --set finetune.epochs=N.")
    ] = None,
    selection: Annotated[
        str, typer.Option(help="last: the last epoch. best-val: best on held-out training subjects.")
    ] = "last",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32, tf32 (GPU) or bf16; auto: bf16 on CPUs that are made for it, else fp32.")
    ] = "auto",
    engine: Annotated[str, typer.Option(help="auto, plain or fast: how steps are carried out.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores when left out.")] = None,
    parallel_folds: Annotated[
        str, typer.Option(help="Folds trained at a time, in a process each; auto: on a CPU one for each thread.")
    ] = "auto",
    no_pretrain: Annotated[bool, typer.Option("--no-pretrain", help="Fine-tune from random weights.")] = False,
    amg: Annotated[str, typer.Option(help="Run of a trained AMG to use (key or its beginning).")] = "",
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    runs: Runs = None,
    data_home: DataHome = None,
) -> None:
    """Train a method under a protocol: attention maps, pre-training, then every fold. Resumable at any moment."""
    from ferbench.cli import progress
    from ferbench.execution.training import TrainOptions, prepare_training, train_all

    options = TrainOptions(
        method=method, dataset=dataset, preset=preset, recipe=recipe, folds=folds, rule=rule, folds_file=folds_file,
        seed=seed, epochs=epochs, selection=selection, device=device, precision=precision, engine=engine,
        threads=threads, pretrain=not no_pretrain, amg=amg, overrides=tuple(overrides or ()),
        parallel_folds=parallel_folds,
    )  # fmt: skip
    with progress.bars() as bars:
        session = prepare_training(options, runs, data_home, bars.drawing)
        progress.print_plan(session)
        bars.expect(session)
        if not dry_run:
            train_all(session, bars.job, bars.outcome)
    if not dry_run:
        progress.print_end(session)


def show(
    method: Annotated[str, typer.Argument(help="Method to show; all of them are listed when left out.")] = "",
    preset: Preset = "paper",
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Protocol it would be trained under.")] = "ckplus",
    overrides: Overrides = None,
    format: Format = "console",
) -> None:
    """Show a method: parameters, FLOPs, shapes and the resolved recipe."""
    from ferbench.execution import inspection

    if not method:
        emit(inspection.list_methods(), format)
        return
    emit(inspection.describe(method, preset or "paper", dataset, tuple(overrides or ())), format)


def env(format: Format = "console") -> None:
    """Print what a bug report needs: versions, machine, commit, folders."""
    from ferbench.environment import describe
    from ferbench.files import data_home, runs_home

    facts: dict[str, Any] = {
        **describe(),
        "data_home": str(data_home()),
        "runs_home": str(runs_home().resolve()),
    }
    facts["command"] = sys.executable
    emit([("environment", facts)], format)
