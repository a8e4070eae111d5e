"""``ferbench``: the verbs, put together; errors become one line and an exit code."""

import sys

import typer

from ferbench import __version__
from ferbench.cli import data, protocol, report, train
from ferbench.errors import INTERRUPTED, FerbenchError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Benchmarks for facial expression recognition whose numbers can be trusted.",
    epilog="Start with: ferbench train wslgan --dataset synth",
)
app.add_typer(data.app, name="data", help="Prepare, list, check and draw datasets.")
app.add_typer(protocol.app, name="protocol", help="Show protocols and export their folds.")
app.command()(protocol.audit)
app.command()(train.show)
app.command()(train.train)
app.command()(report.runs)
app.command()(report.report)
app.command()(train.env)


@app.callback(invoke_without_command=True)
def version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        print(f"ferbench {__version__}")
        raise typer.Exit


def run() -> None:
    """Entry point of the ``ferbench`` command. Exit codes: see ``ferbench.errors``."""
    try:
        # Not standalone: click would turn Ctrl-C into its own exit code 1 and hide ours.
        code = app(standalone_mode=False)
    except FerbenchError as error:
        print(f"ferbench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("ferbench: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        shown = getattr(error, "show", None)  # usage errors of click, which know how to print themselves
        if shown is None:
            raise
        shown()
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(code if isinstance(code, int) else 0)
