"""Former option names, which still work in this version; a note on stderr tells the new name."""

import sys
from typing import Any

from typer.core import TyperCommand

RENAMED = {
    "--reading": "--trial",
    "--readings": "--trials",
    "--protocol-habits": "--leakage",
    "--peer": "--baseline",
    "--why": "--reason",
    "--parallel-folds": "--jobs",
}


class Command(TyperCommand):
    """A verb that also takes the former names of its options, which no help text or completion shows."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {name for param in self.params for name in param.opts}
        return super().parse_args(ctx, _renamed(args, own))


def _renamed(args: list[str], own: set[str]) -> list[str]:
    """Replace former names in a command line. own : option names that the verb has now."""
    ends = args.index("--") if "--" in args else len(args)
    words = []
    for place, word in enumerate(args):
        name, sign, value = word.partition("=")
        now = RENAMED.get(name)
        if place < ends and now in own and name not in own:
            print(f"ferbench: {name} is called {now} now; the old name goes away in the next version", file=sys.stderr)
            word = f"{now}{sign}{value}"
        words.append(word)
    return words
