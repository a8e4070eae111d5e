"""``ferbench``: the verbs, put together; errors become one line and an exit code."""

import sys

import typer

from ferbench import DEFAULT_METHOD, __version__
from ferbench.cli import (
    ablate,
    bench,
    compare,
    data,
    evaluate,
    export,
    maps,
    predict,
    protocol,
    readable,
    report,
    train,
)
from ferbench.errors import INTERRUPTED, DataError, FerbenchError, JobFailed, UsageError, refusal
from ferbench.processes import STOPPED, end_with_parent, heed_signals

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Benchmarks for facial expression recognition whose numbers can be trusted.",
    epilog=f"Start with: ferbench train {DEFAULT_METHOD} --dataset synth",
)
app.add_typer(data.app, name="data", help="Prepare, list, check and draw datasets.")
app.add_typer(protocol.app, name="protocol", help="Show protocols and export their folds.")
app.command()(protocol.audit)
app.command()(train.show)
app.command()(train.train)
app.command()(ablate.ablate)
app.command()(report.runs)
app.command()(report.report)
app.command()(report.paper)
app.command()(compare.compare)
app.command()(compare.check)
app.command()(bench.bench)
app.command()(export.export)
app.command()(predict.predict)
app.command()(evaluate.evaluate)
app.command()(evaluate.contamination)
app.command()(evaluate.card)
app.command()(maps.maps)
app.command()(train.env)


@app.callback(invoke_without_command=True)
def version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        print(f"ferbench {__version__}")
        raise typer.Exit


def run() -> None:
    """Entry point of the ``ferbench`` command. Exit codes: see ``ferbench.errors``."""
    heed_signals()
    end_with_parent()
    readable.on(sys.stdout, sys.stderr)
    sys.exit(_code())


def _code() -> int:
    try:
        # Not standalone, so that errors come out here; Ctrl-C comes out as typer's own 130, or as itself.
        code = app(standalone_mode=False) or 0
        sys.stdout.flush()  # or a full disk would be met after all this
    except FerbenchError as error:
        print(f"ferbench: {readable.one_line(str(error))}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has gone: nobody is left to tell
        return 0
    except Exception as error:
        if line := refusal(error):
            print(f"ferbench: {line}", file=sys.stderr)
            return DataError.exit_code if isinstance(error, OSError) else JobFailed.exit_code
        show = getattr(error, "show", None)  # wrong usage, which knows how to print itself
        if show is None:
            raise
        show()
        return UsageError.exit_code
    if code == INTERRUPTED:
        print(STOPPED, file=sys.stderr)
    return code
