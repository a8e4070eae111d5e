"""Text for a terminal: tables of facts, characters that its encoding lacks, messages of one line, durations."""

import codecs
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from ferbench.report.formats import PLAIN, check_format
from ferbench.text import printable

_HANDLER = "ferbench-degrade"
# ASCII text for the usual characters of tables and sentences. No double quotes or backslashes: JSON must stay JSON.
_ASCII = dict(zip("×–—−·•µ▸✓✗━─│“”‘’", "x---.*u>+---|''''", strict=True)) | {
    "±": "+-",
    "…": "...",
    "→": "->",
    "←": "<-",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "√": "sqrt",
    "σ": "sd",
    "Δ": "d",
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def make_readable(*streams: Any) -> None:
    """Let streams print a readable substitute for characters that their encoding lacks, instead of failing."""
    codecs.register_error(_HANDLER, _substitute)
    for stream in streams:
        if hasattr(stream, "reconfigure"):  # the streams of tests and notebooks may not have it
            stream.reconfigure(errors=_HANDLER)


def one_line(text: str) -> str:
    """Return a message without line breaks and other control characters."""
    return _CONTROL.sub(" ", text)


def duration(seconds: float) -> str:
    """Return a duration for people: ``75`` → ``1 min 15 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


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


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(character: str) -> str:
    """Return a character in ASCII: its usual substitute, else the letter without its accent, else a question mark."""
    if character in _ASCII:
        return _ASCII[character]
    letter = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return letter if letter.isalnum() else "?"
