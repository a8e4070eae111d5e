"""``ferbench compare`` and ``ferbench check``."""

from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli.formats import Runs


def compare(
    first: Annotated[str, typer.Argument(help="A folder of runs, or how a run or an experiment begins.")],
    second: Annotated[str, typer.Argument(help="The same, to be held against the first.")],
    flips: Annotated[int, typer.Option(min=0, help="How many images that differ are listed.")] = 10,
    format: Annotated[str, typer.Option(help="console, markdown or json.")] = "console",
    out: Annotated[Path | None, typer.Option(help="Write to this file instead.")] = None,
    runs: Runs = None,
) -> None:
    """Hold two trainings against each other, image by image."""
    from ferbench.report.compare import write_comparison

    write_comparison(first, second, flips, format, out, runs)


def check(
    baseline: Annotated[
        list[Path] | None, typer.Option(help="Accepted figures; all of baselines/accepted when left out.")
    ] = None,
    tolerance: Annotated[
        str, typer.Option(help="auto: a fall that chance does not explain; or points that may be lost.")
    ] = "auto",
    format: Annotated[str, typer.Option(help="console, json, junit or github.")] = "console",
    accept: Annotated[bool, typer.Option("--accept", help="Record what the runs say as accepted.")] = False,
    why: Annotated[str, typer.Option(help="The reason, with --accept.")] = "",
    runs: Runs = None,
) -> None:
    """Fail (exit 1) when accuracy fell below what was accepted."""
    from ferbench.report.check import accept_runs, check_runs

    if accept:
        accept_runs(baseline or [], why, runs)
    else:
        check_runs(baseline or [], tolerance, format, runs)
