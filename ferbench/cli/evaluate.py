"""``ferbench evaluate``, ``contamination`` and ``card``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli import options, output
from ferbench.cli.options import DataHome, Format, Runs, is_file
from ferbench.cli.output import emit


def evaluate(
    context: typer.Context,
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset", "-d", help="Protocol whose test images are predicted.", autocompletion=options.protocols
        ),
    ],
    model: Annotated[
        str,
        typer.Argument(
            help="A run (its key, or how the key begins); a model card (TOML); an ONNX or Keras file or module:name "
            "with a model card beside it; a timm folder; "
            "a shipped card, such as fer-25; by default the shipped weights."
        ),
    ] = "",
    preset: options.ShippedPreset = "tiny",
    refit: Annotated[
        bool, typer.Option("--refit", help="Fit the model on the training set of each fold, as `ferbench train` does.")
    ] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Evaluate these predictions instead: a CSV with id, and prediction or p_<class> columns.",
            callback=is_file,
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="With --predictions: name of the method in tables.")] = "",
    trained_on: Annotated[
        list[str] | None,
        typer.Option(
            help="Which shipped weights of the preset: those trained on ferplus (tiny only, and its default) or "
            "fer2013. With --predictions: a dataset that the method was trained on, by any name; may be repeated."
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Test again, where a stored result with the same key would be reused.")
    ] = False,
    prior: Annotated[
        str,
        typer.Option(
            help="Class shares that the scores are for: training, as the model gives them; uniform; or estimated from "
            "the test images, without their labels."
        ),
    ] = "training",
    classes: Annotated[
        str,
        typer.Option(help="Classes that may be predicted: all of the model, or only those that the protocol has too."),
    ] = "model",
    precision: options.PredictionPrecision = "fp32",
    engine: options.PredictionEngine = "torch",
    format: Format = "console",
    runs: Runs = None,
    data_home: DataHome = None,
) -> None:
    """Evaluate without training: a run on another dataset (cross-dataset), an external model, or stored predictions."""
    from ferbench.errors import UsageError
    from ferbench.inference.priors import AS_GIVEN, Adjustment
    from ferbench.protocol import protocol as protocols
    from ferbench.runs.facts import HeldOut
    from ferbench.training.arithmetic import Arithmetic

    def notify(line: str) -> None:
        print(output.one_line(line), file=sys.stderr)

    arithmetic = Arithmetic(precision, engine)
    if predictions is not None and (model or refit):
        raise UsageError("--predictions stands for the model: give no MODEL and no --refit")
    if predictions is None and (name or (trained_on and (model or len(trained_on) > 1))):
        raise UsageError(
            "--name and several --trained-on go with --predictions; of a model, its card or record says both"
        )
    adjustment = Adjustment(prior, classes)
    if refit:
        if adjustment != AS_GIVEN:
            raise UsageError("--prior and --classes go without --refit: a model that is fitted here is no finished one")
        if fresh:
            raise UsageError("--fresh goes without --refit: delete the runs of a training to train again")
        arithmetic.check_default("--refit")
        _refit(model, dataset, context.obj, runs, data_home)
        return
    protocols.load(dataset)  # a misspelt name is refused before what evaluates is imported
    from ferbench.inference import evaluate as work

    if predictions is not None:
        model = name or predictions.stem
    names = tuple(trained_on or ())
    record = work.evaluate(
        model,
        preset,
        dataset,
        runs,
        data_home,
        predictions=predictions,
        trained_on=names,
        fresh=fresh,
        notify=notify,
        arithmetic=arithmetic,
        adjustment=adjustment,
    )
    notes = record.facts.get("notes", [])
    for note in notes:
        notify(f"note: {note}")
    held_out, result = HeldOut.model_validate(record.facts["held_out"]), record.result
    network = record.identity.parents.get("network") or record.facts["display"]
    emit(
        [
            (
                f"run {record.key}: {network} on {record.identity.protocol}",
                {
                    "trained on": record.facts["trained_on"] or "unknown",
                    **({"scores": ", ".join(changed)} if (changed := record.facts.get("changed")) else {}),
                    "images": result["images"],
                    "accuracy": f"{result['accuracy']:.2%}",
                    "held out": str(held_out),
                    **({"why": held_out.why} if held_out.why else {}),
                    **(
                        {"accuracy without": f"{result['held_out_accuracy']:.2%} of {result['held_out_images']:,}"}
                        if "held_out_accuracy" in result
                        else {}
                    ),
                    "left out, unknown to the network": record.facts["left_out"] or "none",
                    **({"notes": notes} if notes and format == "json" else {}),
                    "see": f"ferbench report --dataset {record.identity.protocol.partition('@')[0]}",
                },
            )
        ],
        format,
    )


def _refit(model: str, dataset: str, command: list[str], runs: Path | None, home: Path | None) -> None:
    from ferbench.cli import progress
    from ferbench.errors import UsageError
    from ferbench.execution import training
    from ferbench.execution.options import TrainOptions
    from ferbench.methods.foreign.cards import card_of

    card = card_of(model)
    if card is None:
        raise UsageError("--refit takes a model with a card: a run is what it is")
    with progress.of_training() as display:
        training.train([TrainOptions(str(card), dataset)], display, command, runs, home)


def contamination(
    dataset: Annotated[
        str, typer.Option("--dataset", "-d", help="Protocol with an official split.", autocompletion=options.protocols)
    ],
    model: Annotated[str, typer.Argument(help="A model, as for `ferbench evaluate`.")] = "",
    preset: options.ShippedPreset = "tiny",
    trained_on: options.TrainedOn = "",
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures",
            help="Compare the test images with those that the model learned from, without predicting; without MODEL, "
            "for all networks and cards that come with ferbench.",
        ),
    ] = False,
    precision: options.PredictionPrecision = "fp32",
    engine: options.PredictionEngine = "torch",
    format: Format = "console",
    runs: Runs = None,
    data_home: DataHome = None,
) -> None:
    """Look for evidence that a model was trained on the test images. The exit code is 0 in any case."""
    from dataclasses import asdict

    from ferbench.protocol import protocol as protocols
    from ferbench.training.arithmetic import Arithmetic

    arithmetic = Arithmetic(precision, engine)
    protocols.load(dataset)
    from ferbench.inference import contamination as work

    if pictures:
        arithmetic.check_default("--pictures")
        emit([(f"held out on {dataset}", work.learned_by(model, dataset, runs, data_home))], format)
        return
    evidence = work.contamination(model, preset, dataset, runs, data_home, arithmetic, trained_on)
    rows = {name: _rounded(value) for name, value in asdict(evidence).items()}
    emit([(f"{evidence.title} on {dataset}", rows)], format)


def _rounded(value: object) -> object:
    return f"{value:.3f}" if isinstance(value, float) else value


def card(
    model: Annotated[
        str, typer.Argument(help="An ONNX or Keras file, a timm folder, package.module:name, or a shipped card's name.")
    ],
) -> None:
    """Print a model card to start from: the inputs, outputs and training data of an external model."""
    from ferbench.methods.foreign.cards import template

    print(template(model), end="")
