"""``ferbench report``, ``paper``, ``runs``, ``compare`` and ``check``."""

from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli import options
from ferbench.cli.options import DataHome, Format, Runs, is_file, is_folder
from ferbench.report.formats import PLAIN, names, one_of


def report(
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "-d",
            help="Only this dataset, or this protocol file: ckplus includes ckplus-sequences.",
            autocompletion=options.protocols,
        ),
    ] = None,
    bench: Annotated[bool, typer.Option("--bench", help="Report speed instead of accuracy.")] = False,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Report the ablation study, and how much data leakage inflates accuracy.")
    ] = False,
    trials: Annotated[
        bool, typer.Option("--trials", help="Report hyperparameter trials on held-out training subjects.")
    ] = False,
    format: Annotated[
        str, typer.Option(help=f"Output format: {one_of(names('tables', 'report', 'tracker'))}.")
    ] = "console",
    out: Annotated[
        Path | None, typer.Option(help="Write to this file; tensorboard: a new folder, mlflow: a new database.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for figures, as PNG and SVG.", callback=is_folder)
    ] = None,
    errors: Annotated[
        int,
        typer.Option(
            min=0, help="HTML: show this many of the most confident errors, with images of the prepared dataset."
        ),
    ] = 0,
    training: Annotated[
        str, typer.Option(help="Model card: the training it describes, by the beginning of its experiment or run.")
    ] = "",
    runs: Runs = None,
    data_home: DataHome = None,
) -> None:
    """Compute tables from the stored predictions, beside the published figures."""
    from ferbench.files import check_place
    from ferbench.protocol import protocol as protocols
    from ferbench.report.ablation import write_ablation
    from ferbench.report.speed import write_speed_report
    from ferbench.report.trials import write_trials
    from ferbench.report.verbs import write_report

    if out is not None:
        check_place(out, "--out", folder=format == "tensorboard")
    if dataset is not None and dataset.endswith(".toml"):
        dataset = protocols.load_any(dataset).name
    if bench:
        write_speed_report(dataset, format, out, runs)
    elif ablation:
        write_ablation(dataset, format, out, runs)
    elif trials:
        write_trials(dataset, format, out, runs)
    else:
        write_report(dataset, format, out, runs, errors, data_home, figures, training)


def paper(
    table: Annotated[str, typer.Option(help="Only the table with this number.")] = "",
    format: Annotated[str, typer.Option(help=f"Output format: {one_of(names('tables'))}.")] = "console",
    out: Annotated[Path | None, typer.Option(help="Write to this file.", callback=is_file)] = None,
) -> None:
    """Show the published tables and check their arithmetic. The exit code is 1 if it is inconsistent."""
    from ferbench.report.published import write_paper

    write_paper(table, format, out)


def runs(runs: Runs = None, format: Format = "console") -> None:
    """List the stored runs."""
    from ferbench.report.verbs import list_runs

    list_runs(runs, format)


def compare(
    first: Annotated[str, typer.Argument(help="A folder of runs, or how the key of a run or of an experiment begins.")],
    second: Annotated[str, typer.Argument(help="The same, to be compared with the first.")],
    flips: Annotated[int, typer.Option(min=0, help="How many of the images with another outcome are listed.")] = 10,
    format: Annotated[str, typer.Option(help=f"Output format: {one_of(names('tables'))}.")] = "console",
    out: Annotated[Path | None, typer.Option(help="Write to this file.", callback=is_file)] = None,
    runs: Runs = None,
) -> None:
    """Compare two trainings image by image, with a paired test."""
    from ferbench.report.compare import write_comparison

    write_comparison(first, second, flips, format, out, runs)


def check(
    baseline: Annotated[
        list[Path] | None,
        typer.Option(
            help="File of accepted figures; by default all of ./baselines/accepted, else those of ferbench.",
            callback=is_file,
        ),
    ] = None,
    tolerance: Annotated[
        str,
        typer.Option(
            help="auto: fail on a significant drop only; or the number of percentage points that may be lost."
        ),
    ] = "auto",
    format: Annotated[str, typer.Option(help=f"Output format: {one_of((*PLAIN, *names('check')))}.")] = "console",
    accept: Annotated[
        bool, typer.Option("--accept", help="Store the present figures as the accepted ones, in ./baselines/accepted.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why these figures are accepted; needed with --accept.")] = "",
    runs: Runs = None,
) -> None:
    """Regression test of accuracy: the exit code is 1 if it dropped below the accepted figures."""
    from ferbench.report.check import accept_runs, check_runs

    if accept:
        accept_runs(baseline or [], reason, runs)
    else:
        check_runs(baseline or [], tolerance, format, runs)
