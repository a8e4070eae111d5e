"""``ferbench status`` and ``retry``."""

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.text import Text

from ferbench.cli.options import Format, Runs
from ferbench.cli.output import check_plain, duration
from ferbench.text import printable

if TYPE_CHECKING:
    from ferbench.runs.plans import Status

_REFRESH_SECONDS = 2.0  # of --watch


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
                "id": one.plan.id,
                "command": one.plan.command,
                "started": one.plan.started,
                "alive": one.alive,
                **one.counts,
                "running_jobs": one.running,
                "failed_jobs": one.failed,
                "seconds_left": one.seconds_left,
            }
            for one in current()
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
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


def rendered(commands: "list[Status]", home: Path) -> Group | Text:
    """Return the progress of commands for the console: each command, its jobs, and what is running or has failed."""
    if not commands:
        return Text(f"no command has made runs in {home} yet")
    lines: list[Text] = []
    for one in commands:
        counts, left = one.counts, one.seconds_left
        unfinished = counts["running"] + counts["waiting"]
        state = "under way" if one.alive else "ended" if not unfinished else "stopped"
        time_left = ""
        if unfinished:
            time_left = ", time left unknown" if left is None else f", about {duration(left)} left"
        jobs = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "done")
        lines += [
            Text(printable(shlex.join(["ferbench", *one.plan.command])), style="bold"),
            Text(f"  {one.plan.id}  {state}: {jobs} of {sum(counts.values())}{time_left}"),
            *(Text(printable(f"  running  {title}")) for title in one.running),
            *(Text(printable(f"  failed   {title}: {error}")) for title, error in one.failed.items()),
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
    for one in plans:
        print(f"ferbench {printable(shlex.join(one.command))}")
        # The command line as it was typed keeps its plan; the runs home is the one that was named here.
        app([*one.command, "--runs", str(store.home)], standalone_mode=False, obj=one.command)
