"""``ferbench report`` and ``ferbench runs``."""

from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli.formats import DataHome, Format, Runs


def report(
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", "-d", help="Only this set: ckplus with ckplus-sequences, or ckplus-sequences alone."),
    ] = None,
    bench: Annotated[bool, typer.Option("--bench", help="Speed instead of accuracy.")] = False,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="What each part is worth, and how far habits of the literature flatter.")
    ] = False,
    readings: Annotated[
        bool, typer.Option("--readings", help="How readings of the recipe did on held-out training subjects.")
    ] = False,
    format: Annotated[
        str, typer.Option(help="console, markdown, latex, csv, html, json, model-card, tensorboard or mlflow.")
    ] = "console",
    out: Annotated[
        Path | None, typer.Option(help="Write to this file instead; tensorboard: a new folder, mlflow: a new database.")
    ] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for all figures, as PNG and SVG.")] = None,
    errors: Annotated[
        int, typer.Option(min=0, help="HTML: show so many of the surest errors, with pictures of the prepared set.")
    ] = 0,
    training: Annotated[
        str,
        typer.Option(help="model-card: what it is of, by how its experiment or run begins, where there are several."),
    ] = "",
    runs: Runs = None,
    data_home: DataHome = None,
) -> None:
    """Show what the stored runs say, beside the published figures."""
    from ferbench.report.verbs import write_ablation, write_readings, write_report, write_speed_report

    if bench:
        write_speed_report(dataset, format, out, runs)
    elif ablation:
        write_ablation(dataset, format, out, runs)
    elif readings:
        write_readings(dataset, format, out, runs)
    else:
        write_report(dataset, format, out, runs, errors, data_home, figures, training)


def paper(
    table: Annotated[str, typer.Option(help="Only the table of this number.")] = "",
    format: Annotated[str, typer.Option(help="console, markdown, latex, csv or json.")] = "console",
    out: Annotated[Path | None, typer.Option(help="Write to this file instead.")] = None,
) -> None:
    """Show the published tables and check their own arithmetic (exit 1 where it fails)."""
    from ferbench.report.verbs import write_paper

    write_paper(table, format, out)


def runs(runs: Runs = None, format: Format = "console") -> None:
    """List the runs that there are."""
    from ferbench.report.verbs import list_runs

    list_runs(runs, format)
