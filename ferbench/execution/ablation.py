"""The trainings of ``ferbench ablate``: a method and its variants with the same folds and seeds, trials, or leakage."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ferbench.errors import UsageError
from ferbench.execution.options import TrainOptions
from ferbench.execution.training import Session, prepare_training
from ferbench.methods import recipes


def prepare_ablation(
    options: TrainOptions, variants: str = "", seeds: int = 1, trials: Sequence[str] = (), **places: Any
) -> Session:
    """Plan one training of a method and of each variant, or of each trial, for each seed from 0 to ``seeds`` - 1.

    options : what all trainings share; with ``leakage``, the method alone is trained, and tested in four ways.
    variants : names of methods with commas between; empty: all that extend the method. trials : changes of the recipe
    as ``--set`` takes them, each tried alone beside the method, on held-out training subjects ("best-val"), so that no
    test set chooses any. places : further arguments of :func:`prepare_training`.
    Raises what :func:`prepare_training` raises; UsageError for an unknown variant, for a trial that changes nothing,
    or for two of variants, trials and ``leakage``.
    """
    if options.leakage + bool(variants) + bool(trials) > 1:
        raise UsageError("--leakage and --trial measure WS-LGAN, each alone: leave out the others, and --variants")
    if trials:
        options = replace(options, selection="best-val")
        compared = [options, *(replace(options, overrides=(*options.overrides, trial)) for trial in trials)]
    else:
        names = [name.strip() for name in variants.split(",") if name.strip()] or recipes.variants(options.method)
        names = [options.method] if options.leakage else [options.method, *names]
        compared = [replace(options, method=name) for name in dict.fromkeys(names)]
    trainings = [replace(training, seed=seed) for training in compared for seed in range(seeds)]
    session = prepare_training(trainings, **places)
    planned = {job.request.overrides[-1:] for job in session.jobs if job.kind == "fold"}
    if unchanged := [trial for trial in trials if (trial,) not in planned]:
        raise UsageError(f"--trial {unchanged[0]} changes nothing of these trainings")
    return session
