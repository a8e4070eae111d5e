"""The commands of the real command line, for tests of help texts and of command lines in the documentation."""

import shlex
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from ferbench.cli.main import app

ROOT_COMMAND = get_command(app)


def commands(
    command: Any = ROOT_COMMAND, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any, list[str]]]:
    """Every command with its words and its help texts: its own and those of its arguments and options."""
    if words:
        yield (
            words,
            command,
            [text for text in (command.help, *(getattr(p, "help", "") for p in command.params)) if text],
        )
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*words, name))


def find(words: list[str]) -> tuple[Any, list[str]]:
    """The command that a command line is for, and the words that are left for it."""
    command, rest = ROOT_COMMAND, list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    return command, rest


def parsed(line: str) -> dict[str, Any]:
    """Parse ``ferbench …`` as the command line does, without doing it. Raises what the command line raises."""
    program, *words = shlex.split(line, comments=True)
    assert program == "ferbench"
    command, rest = find(words)
    return command.make_context("ferbench", rest).params
