"""``ferbench sweep``, ``status`` and ``retry``."""

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli import shared
from ferbench.cli.formats import DataHome, Format, Runs, check_plain, is_file

_PERIOD = 2.0  # seconds between two looks of --watch


def sweep(
    plan: Annotated[
        Path, typer.Argument(help=r"TOML file with methods, datasets, seeds, \[options] and \[set].", callback=is_file)
    ],
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    engine: shared.Engine = "auto",
    threads: shared.Threads = None,
    jobs: shared.Jobs = "auto",
    executor: shared.Executor = "local",
    address: shared.Address = "",
    gpus_per_job: shared.GpusPerJob = 0.0,
    dry_run: shared.DryRun = False,
    runs: Runs = None,
    data_home: DataHome = None,
) -> None:
    """Train all combinations of methods, datasets, seeds and options in a file. Repeat the command to resume."""
    from dataclasses import replace

    from ferbench.cli import progress
    from ferbench.execution.sweep import read_sweep
    from ferbench.execution.training import prepare_training

    trainings = [
        replace(
            one,
            device=device,
            precision=precision,
            engine=engine,
            threads=threads,
            jobs=jobs,
            executor=executor,
            address=address,
            gpus_per_job=gpus_per_job,
        )
        for one in read_sweep(plan)
    ]
    words = ["sweep", str(plan), "--precision", precision, "--engine", engine]
    with progress.bars() as bars:
        session = prepare_training(trainings, words, runs, data_home, bars.drawing)
        progress.print_plan(session, bars.console)
        if dry_run:
            return
        progress.carry_out(session, bars)
    progress.print_end(session)


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every two seconds until nothing runs.")] = False,
    format: Format = "console",
    runs: Runs = None,
) -> None:
    """Show the progress of training commands: jobs done, running, failed and waiting, and the time left."""
    from ferbench.files import runs_home
    from ferbench.runs.plans import Standing, standing, stored
    from ferbench.runs.store import Store

    check_plain(format)
    store = Store(runs_home(runs))

    def look() -> list[Standing]:
        return [standing(plan, store) for plan in stored(store.home)]

    if format == "json":
        rows = [
            {
                "id": one.plan.id,
                "command": one.plan.command,
                "started": one.plan.started,
                "alive": one.alive,
                **one.counts,
                "running_jobs": one.running,
                "failed_jobs": one.failed,
                "seconds_left": one.seconds_left,
            }
            for one in look()
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.live import Live

    from ferbench.cli.progress import standings

    console = Console()
    if not watch:
        console.print(standings(look(), store.home))
        return
    with Live(console=console, refresh_per_second=4) as live:
        while True:
            found = look()
            live.update(standings(found, store.home))
            if not any(one.alive for one in found):
                return
            time.sleep(_PERIOD)


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
    from ferbench.text import printable

    store = Store(runs_home(runs))
    again = to_retry(stored(store.home), store, plan)
    if not again:
        print(f"nothing to try again in {store.home}: no job has failed")
    for one in again:
        print(f"ferbench {printable(shlex.join(one.command))}")
        sys.argv[1:] = one.command  # as if it had been typed: it keeps its plan
        app([*one.command, "--runs", str(store.home)], standalone_mode=False)
