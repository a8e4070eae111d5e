"""What ``ferbench ablate`` trains: WS-LGAN and its variants with the same folds and seeds, or its habits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ferbench import methods
from ferbench.errors import UsageError
from ferbench.execution.training import Session, TrainOptions, prepare_training
from ferbench.training.loop import Report


def prepare_ablation(
    options: TrainOptions, variants: str, seeds: int, runs: Path | None, home: Path | None,
    drawing: Callable[[str], Report],
) -> Session:  # fmt: skip
    """Plan one training for each seed from 0 to ``seeds`` - 1 of WS-LGAN and of each variant.

    options : what all share; with ``habits``, WS-LGAN alone is planned, trained and tested in four ways.
    variants : names of methods with commas between; empty: all that there are.
    Raises what :func:`prepare_training` raises; UsageError for an unknown variant, or for any with ``habits``.
    """
    if options.habits and variants:
        raise UsageError("--protocol-habits measures WS-LGAN: leave out --variants")
    named = [name.strip() for name in variants.split(",") if name.strip()] or methods.names()
    names = dict.fromkeys([options.method, *([] if options.habits else named)])
    trainings = [replace(options, method=name, seed=seed) for name in names for seed in range(seeds)]
    kind = ["--protocol-habits"] if options.habits else ["--variants", ",".join(names)]
    words = options.words("ablate", *kind, "--seeds", str(seeds))
    return prepare_training(trainings, words, runs, home, drawing)
