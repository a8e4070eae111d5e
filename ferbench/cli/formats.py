"""Options that several verbs share, and printing of plain facts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ferbench.report.formats import PLAIN, check_format, one_of

Paths = Path | list[Path] | None


def is_file(param: typer.CallbackParam, value: Paths) -> Paths:
    """Refuse a folder where a file belongs: the callback of an option or argument."""
    return _checked(param, value, folder=False)


def is_folder(param: typer.CallbackParam, value: Paths) -> Paths:
    """Refuse a file where a folder belongs: the callback of an option or argument."""
    return _checked(param, value, folder=True)


def _checked(param: typer.CallbackParam, value: Paths, folder: bool) -> Paths:
    from ferbench.files import check_place

    for path in value if isinstance(value, list) else [value]:
        if path is not None:
            check_place(path, param.opts[0], folder)
    return value


DataHome = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the prepared datasets.",
        envvar="FERBENCH_DATA",
        show_default="the platform's data folder",
        callback=is_folder,
    ),
]
Runs = Annotated[
    Path | None,
    typer.Option(help="Folder of the runs.", envvar="FERBENCH_RUNS", show_default="./runs", callback=is_folder),
]
Format = Annotated[str, typer.Option(help=f"Output format: {one_of(PLAIN)}.")]


def check_plain(format: str) -> None:
    """Refuse another format than those of verbs that print plain facts."""
    check_format(format, formats=PLAIN)


def emit(sections: Sequence[tuple[str, dict[str, Any] | list[dict[str, Any]]]], format: str) -> None:
    """Print titled tables on the console, or one JSON document with a key for each title.

    A dictionary becomes two columns, names and values; a list of dictionaries with the same keys becomes rows.
    """
    check_plain(format)
    if format == "json":
        print(json.dumps(dict(sections), indent=2, default=str))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ferbench.text import printable

    def shown(text: str, style: str = "") -> Text:
        return Text(printable(text), style=style)  # names come from files of others: no markup, no control sequences

    console = Console()
    for title, facts in sections:
        rows = isinstance(facts, list)
        console.print(shown(title, "bold"))
        if not facts:
            console.print("none\n", highlight=False)
            continue
        table = Table(show_header=rows, box=None, pad_edge=False)
        if isinstance(facts, list):
            for name, value in _flat(facts[0]):
                table.add_column(shown(name), justify="right" if value.isdigit() else "left", overflow="fold")
            for row in facts:
                table.add_row(*(shown(value) for _, value in _flat(row)))
        else:
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for name, value in _flat(facts):
                table.add_row(shown(name, "cyan"), shown(value))
        console.print(table)
        console.print()


def _flat(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            rows.append((prefix + name, ", ".join(str(item) for item in value) or "none"))
        else:
            rows.append((prefix + name, str(value)))
    return rows
