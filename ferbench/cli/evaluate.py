"""``ferbench evaluate``."""

from typing import Annotated

import typer

from ferbench.cli.formats import DataHome, Format, Runs, emit


def evaluate(
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Protocol whose test images are predicted.")],
    run: Annotated[
        str, typer.Argument(help="A trained run: its key or the beginning; the shipped weights if not.")
    ] = "",
    preset: Annotated[str, typer.Option(help="Which shipped weights: tiny, light, wide or full.")] = "tiny",
    format: Format = "console",
    runs: Runs = None,
    data_home: DataHome = None,
) -> None:
    """Test a trained network on a set that it has not seen: cross-dataset, or zero-shot from pre-training."""
    from ferbench.evaluate import evaluate as work

    record = work(run, preset, dataset, runs, data_home)
    emit([(f"run {record.key}: {record.identity.parents['network']} on {record.identity.protocol}", {
        "trained on": record.facts["trained_on"], "images": record.result["images"],
        "accuracy": f"{record.result['accuracy']:.2%}",
        "left out, unknown to the network": record.facts["left_out"] or "none",
        "see": f"ferbench report --dataset {record.identity.protocol.partition('@')[0]}",
    })], format)  # fmt: skip
