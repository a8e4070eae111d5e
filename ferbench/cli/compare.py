"""``ferbench compare`` and ``ferbench check``."""

from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli.formats import Runs, is_file
from ferbench.report.formats import PLAIN, names, one_of


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
