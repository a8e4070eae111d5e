"""``ferbench bench``."""

from pathlib import Path
from typing import Annotated

import typer

from ferbench import DEFAULT_METHOD
from ferbench.cli.options import DataHome, Runs, is_file
from ferbench.report.formats import check_format, names, one_of

_LIST = "; separate several with commas"


def bench(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="inference, fe, amg, step, epoch, prepare; by default inference and step."),
    ] = None,
    method: Annotated[str, typer.Option(help="Methods" + _LIST + ".")] = DEFAULT_METHOD,
    preset: Annotated[str, typer.Option(help="paper, full, light, wide, tiny" + _LIST + ".")] = "tiny",
    engine: Annotated[str, typer.Option(help="plain, fast, compiled, searched" + _LIST + ".")] = "fast",
    precision: Annotated[str, typer.Option(help="fp32, tf32, bf16" + _LIST + ".")] = "fp32",
    backend: Annotated[str, typer.Option(help="torch, onnxruntime, openvino" + _LIST + ".")] = "torch,onnxruntime",
    batch: Annotated[
        str, typer.Option(help="Batch size: images in a call, pairs in a training step" + _LIST + ".")
    ] = "1,32",
    scenario: Annotated[
        str, typer.Option(help="single-stream (batch 1), offline, evaluate (many images)" + _LIST + ".")
    ] = "single-stream,offline",
    baseline: Annotated[
        str,
        typer.Option(
            help="Reference loops timed in the same run: naive, strong; of the scenario evaluate naive alone"
            + _LIST
            + "."
        ),
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores by default.")] = None,
    accuracy: Annotated[
        bool,
        typer.Option(
            "--accuracy",
            help="Test the shipped weights on FER2013's PublicTest in each precision and backend of inference; "
            "fer2013 has to be prepared.",
        ),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer and shorter repetitions; not for published figures.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Random seed of weights, inputs, order and resampling.")] = 0,
    format: Annotated[str, typer.Option(help=f"Output format: {one_of(names('tables'))}.")] = "console",
    out: Annotated[Path | None, typer.Option(help="Write to this file.", callback=is_file)] = None,
    runs: Runs = None,
    data_home: DataHome = None,
) -> None:
    """Measure the speed of inference, training and data preparation. Each result is verified against float64."""
    from ferbench.bench import BenchOptions
    from ferbench.cli import output, progress
    from ferbench.files import runs_home

    check_format(format, out)
    options = BenchOptions(
        whats=tuple(what or ("inference", "step")),
        methods=_words(method),
        presets=_words(preset),
        engines=_words(engine),
        precisions=_words(precision),
        backends=_words(backend),
        batches=_numbers(batch),
        scenarios=_words(scenario),
        baselines=_words(baseline),
        device=device,
        threads=threads,
        mode="quick" if quick else "standard",
        seed=seed,
        accuracy=accuracy,
        home=data_home,
    )
    options.check()
    from ferbench.bench.run import run
    from ferbench.report.speed import write_speed
    from ferbench.runs.speed import store

    with progress.bars(to_stderr=True) as bars:
        record = run(
            options,
            bars.bar("bench"),
            lambda rows, seconds: bars.console.print(
                f"{rows} {'row' if rows == 1 else 'rows'}: about {output.duration(seconds)}", highlight=False
            ),
        )
    store(runs_home(runs), record)
    write_speed([record], format, out)


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _numbers(text: str) -> tuple[int, ...]:
    from ferbench.errors import UsageError

    try:
        return tuple(int(word) for word in _words(text))
    except ValueError:
        raise UsageError(f"--batch takes numbers with commas, not {text!r}") from None
