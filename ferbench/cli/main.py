"""``ferbench``: the verbs, put together; errors become one line and an exit code."""

import sys
import traceback

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
    sweep,
    train,
)
from ferbench.cli.panels import DATA, JUDGE, OTHER, REPORT, SPEED, TRAIN, verb
from ferbench.errors import FAULT, INTERRUPTED, DataError, FerbenchError, JobFailed, UsageError, refusal
from ferbench.processes import STOPPED, end_with_parent, heed_signals, leave

_FAULT = "unexpected error: unless it is of your own code, please report the lines above and what `ferbench env` prints"

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Benchmark and evaluate facial expression recognition under fixed, subject-disjoint protocols.",
    epilog=f"Start with: ferbench train {DEFAULT_METHOD} --dataset synth (drawn faces: no dataset is needed)",
)
app.add_typer(data.app, name="data", rich_help_panel=DATA, help="Prepare, list, verify and draw datasets.")
app.add_typer(protocol.app, name="protocol", rich_help_panel=DATA, help="Show protocols and export their folds.")
app.command(**verb(DATA, "ferbench audit folds.csv --dataset ckplus"))(protocol.audit)
app.command(
    **verb(
        TRAIN,
        f"ferbench train {DEFAULT_METHOD} --dataset synth",
        "ferbench train hog-svm --dataset ckplus --preset tiny --seed 1",
        f"ferbench train {DEFAULT_METHOD} --dataset ckplus --preset tiny --set finetune.epochs=20 --dry-run",
    )
)(train.train)
app.command(**verb(TRAIN, "ferbench show", f"ferbench show {DEFAULT_METHOD} --preset tiny --dataset synth"))(train.show)
app.command(
    **verb(
        TRAIN,
        "ferbench ablate --dataset ckplus --preset tiny --variants gfnet,lfnet --seeds 3",
        "ferbench ablate --dataset ckplus --preset tiny --leakage",
        "ferbench ablate --dataset ckplus --trial finetune.lr=0.02 --trial finetune.ema=2.0",
    )
)(ablate.ablate)
app.command(**verb(TRAIN, "ferbench sweep plan.toml --dry-run", "ferbench sweep plan.toml --jobs 2"))(sweep.sweep)
app.command(**verb(TRAIN, "ferbench status --watch"))(sweep.status)
app.command(**verb(TRAIN, "ferbench retry"))(sweep.retry)
app.command(
    **verb(
        REPORT,
        "ferbench report --dataset synth",
        "ferbench report --dataset synth --format html --errors 12 --out report.html",
        "ferbench report --ablation --dataset ckplus --format markdown",
    )
)(report.report)
app.command(**verb(REPORT, "ferbench runs --format json"))(report.runs)
app.command(**verb(REPORT, "ferbench paper --table 2", "ferbench paper --format latex --out tables.tex"))(report.paper)
app.command(**verb(REPORT, "ferbench compare runs-before runs-after --flips 20"))(compare.compare)
app.command(**verb(REPORT, 'ferbench check --accept --reason "first figures"', "ferbench check --format github"))(
    compare.check
)
app.command(
    **verb(SPEED, "ferbench bench --quick", "ferbench bench step --preset tiny --baseline naive,strong --threads 1")
)(bench.bench)
app.command(**verb(SPEED, "ferbench export 8a1aa1ef --out model.onnx"))(export.export)
app.command(
    **verb(
        JUDGE,
        "ferbench evaluate --dataset ckplus",
        "ferbench evaluate model.onnx --dataset ckplus",
        'ferbench evaluate --predictions theirs.csv -d ckplus --name "Their method" --trained-on fer2013',
    )
)(evaluate.evaluate)
app.command(**verb(JUDGE, "ferbench contamination fer-25 -d fer2013-public"))(evaluate.contamination)
app.command(**verb(JUDGE, "ferbench card fer-25", "ferbench card model.onnx > model.toml"))(evaluate.card)
app.command(**verb(JUDGE, "ferbench predict holiday --draw out --format json", "ferbench predict crop.png --aligned"))(
    predict.predict
)
app.command(**verb(JUDGE, "ferbench maps --dataset synth --out figures"))(maps.maps)
app.command(**verb(OTHER, "ferbench env --format json"))(train.env)


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
    code = _code()
    if code == INTERRUPTED:  # taking down all that torch has set up takes seconds, and nothing is left to do
        leave(code)
    sys.exit(code)


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
            traceback.print_exc()
            print(f"ferbench: {_FAULT}", file=sys.stderr)
            return FAULT
        show()
        return UsageError.exit_code
    if code == INTERRUPTED:
        print(STOPPED, file=sys.stderr)
    return code
