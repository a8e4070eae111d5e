"""``ferbench report`` and ``ferbench runs``."""

from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli import options
from ferbench.cli.formats import DataHome, Format, Runs, is_file, is_folder
from ferbench.report.formats import names, one_of


def report(
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "-d",
            help="Only this dataset: ckplus includes ckplus-sequences.",
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
    from ferbench.report.ablation import write_ablation
    from ferbench.report.speed import write_speed_report
    from ferbench.report.trials import write_trials
    from ferbench.report.verbs import write_report

    if out is not None:
        check_place(out, "--out", folder=format == "tensorboard")
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
