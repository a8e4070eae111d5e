"""Every output format in one registry: what can be written so, and the function that does it.

This module loads nothing else, so that help texts may list formats.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

# What can be written in a format: "tables" of any command, a "report" of accuracy, a new log of a "tracker", the
# findings of a "check".
FORMATS = {
    "console": ("tables", "text:console"),
    "markdown": ("tables", "text:markdown"),
    "latex": ("tables", "text:latex"),
    "csv": ("tables", "text:csv"),
    "json": ("tables", "text:json"),
    "html": ("report", "html:page"),
    "model-card": ("report", "modelcard:model_card"),
    "tensorboard": ("tracker", "trackers:tensorboard"),
    "mlflow": ("tracker", "trackers:mlflow"),
    "junit": ("check", "text:junit"),
    "github": ("check", "text:github"),
}
PLAIN = ("console", "json")  # of commands that print plain facts


def names(*kinds: str) -> tuple[str, ...]:
    """Return the formats in which any of these kinds of content can be written."""
    return tuple(name for name, (kind, _) in FORMATS.items() if kind in kinds)


def one_of(formats: tuple[str, ...]) -> str:
    """Return formats in words: ``console, markdown or json``."""
    return f"{', '.join(formats[:-1])} or {formats[-1]}"


def renderer(format: str) -> Callable[..., Any]:
    """Return the function of a format, whose module is loaded now."""
    module, _, function = FORMATS[format][1].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), function)


def check_format(format: str, out: Path | None = None, formats: tuple[str, ...] = names("tables")) -> None:
    """Raise UsageError for an unknown format, and for a file of what is meant for a terminal."""
    from ferbench.errors import UsageError

    if format not in formats:
        raise UsageError(f"unknown format {format!r}: it is {one_of(formats)}")
    if out is not None and format == "console":
        raise UsageError(f"--out takes --format {one_of(formats[1:])}")
