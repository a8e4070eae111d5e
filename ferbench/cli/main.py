"""The ``ferbench`` command: all commands in their panels; errors become one line and an exit code."""

import sys
import traceback
from collections.abc import Callable

import typer

from ferbench import DEFAULT_METHOD, __version__
from ferbench.cli import bench, data, evaluate, models, output, report, train
from ferbench.cli.options import DATA, EVALUATE, OTHER, REPORT, SPEED, TRAIN, described
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
app.add_typer(data.protocol_app, name="protocol", rich_help_panel=DATA, help="Show protocols and export their folds.")


def _add(command: Callable[..., None], panel: str, *examples: str) -> None:
    app.command(**described(panel, *examples))(command)


_add(data.audit, DATA, "ferbench audit folds.csv --dataset ckplus")
_add(
    train.train,
    TRAIN,
    f"ferbench train {DEFAULT_METHOD} --dataset synth",
    "ferbench train hog-svm --dataset ckplus --preset tiny --seed 1",
    f"ferbench train {DEFAULT_METHOD} --dataset ckplus --preset tiny --set finetune.epochs=20 --dry-run",
)
_add(train.show, TRAIN, "ferbench show", f"ferbench show {DEFAULT_METHOD} --preset tiny --dataset synth")
_add(
    train.ablate,
    TRAIN,
    "ferbench ablate --dataset ckplus --preset tiny --variants gfnet,lfnet --seeds 3",
    "ferbench ablate --dataset ckplus --preset tiny --leakage",
    "ferbench ablate --dataset ckplus --trial finetune.lr=0.02 --trial finetune.ema=2.0",
)
_add(train.sweep, TRAIN, "ferbench sweep plan.toml --dry-run", "ferbench sweep plan.toml --jobs 2")
_add(train.status, TRAIN, "ferbench status --watch")
_add(train.retry, TRAIN, "ferbench retry")
_add(
    report.report,
    REPORT,
    "ferbench report --dataset synth",
    "ferbench report --dataset synth --format html --errors 12 --out report.html",
    "ferbench report --ablation --dataset ckplus --format markdown",
)
_add(report.runs, REPORT, "ferbench runs --format json")
_add(report.paper, REPORT, "ferbench paper --table 2", "ferbench paper --format latex --out tables.tex")
_add(report.compare, REPORT, "ferbench compare runs-before runs-after --flips 20")
_add(report.check, REPORT, 'ferbench check --accept --reason "first figures"', "ferbench check --format github")
_add(
    bench.bench,
    SPEED,
    "ferbench bench --quick",
    "ferbench bench step --preset tiny --baseline naive,strong --threads 1",
)
_add(models.export, SPEED, "ferbench export 8a1aa1ef --out model.onnx")
_add(
    evaluate.evaluate,
    EVALUATE,
    "ferbench evaluate --dataset ckplus",
    "ferbench evaluate model.onnx --dataset ckplus",
    'ferbench evaluate --predictions theirs.csv -d ckplus --name "Their method" --trained-on fer2013',
)
_add(evaluate.contamination, EVALUATE, "ferbench contamination fer-25 -d fer2013-public")
_add(evaluate.card, EVALUATE, "ferbench card fer-25", "ferbench card model.onnx > model.toml")
_add(
    models.predict, EVALUATE, "ferbench predict holiday --draw out --format json", "ferbench predict crop.png --aligned"
)
_add(models.maps, EVALUATE, "ferbench maps --dataset synth --out figures")
_add(train.env, OTHER, "ferbench env --format json")


@app.callback(invoke_without_command=True)
def version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        print(f"ferbench {__version__}")
        raise typer.Exit


def run() -> None:
    """Entry point of the ``ferbench`` command. Exit codes: see ``ferbench.errors``."""
    heed_signals()
    end_with_parent()
    output.make_readable(sys.stdout, sys.stderr)
    code = _code()
    if code == INTERRUPTED:  # an orderly exit with torch loaded takes seconds, and nothing is left to do
        leave(code)
    sys.exit(code)


def _code() -> int:
    try:
        # Not standalone, so that errors are raised here; Ctrl-C is returned as typer's 130, or raised.
        words = sys.argv[1:]
        code = app(words, standalone_mode=False, obj=words) or 0
        sys.stdout.flush()  # so that a full disk is an error here
    except FerbenchError as error:
        print(f"ferbench: {output.one_line(str(error))}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has ended: nobody would read a message
        return 0
    except Exception as error:
        if line := refusal(error):
            print(f"ferbench: {line}", file=sys.stderr)
            return DataError.exit_code if isinstance(error, OSError) else JobFailed.exit_code
        show = getattr(error, "show", None)  # wrong usage, an error of typer that prints itself
        if show is None:
            traceback.print_exc()
            print(f"ferbench: {_FAULT}", file=sys.stderr)
            return FAULT
        show()
        return UsageError.exit_code
    if code == INTERRUPTED:
        print(STOPPED, file=sys.stderr)
    return code
