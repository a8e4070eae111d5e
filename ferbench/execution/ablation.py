"""What ``ferbench ablate`` trains: WS-LGAN and its variants with the same folds and seeds, or its habits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ferbench.errors import UsageError
from ferbench.execution.training import Session, TrainOptions, prepare_training
from ferbench.methods import recipes
from ferbench.training.loop import Report


def prepare_ablation(
    options: TrainOptions, variants: str, seeds: int, runs: Path | None, home: Path | None,
    drawing: Callable[[str], Report], readings: tuple[str, ...] = (),
) -> Session:  # fmt: skip
    """Plan one training for each seed from 0 to ``seeds`` - 1 of WS-LGAN and of each variant, or of each reading.

    options : what all share; with ``habits``, WS-LGAN alone is planned, trained and tested in four ways.
    variants : names of methods with commas between; empty: all that there are.
    readings : changes of the recipe as ``--set`` takes them, each tried alone beside WS-LGAN as it is, on held-out
        training subjects ("best-val"), so that no test side chooses any.
    Raises what :func:`prepare_training` raises; UsageError for an unknown variant, for a reading that changes nothing,
    or for two of variants, readings and ``habits``.
    """
    if options.habits + bool(variants) + bool(readings) > 1:
        raise UsageError("--leakage and --trial measure WS-LGAN, each alone: leave out the others, and "
                         "--variants")  # fmt: skip
    if readings:
        options = replace(options, selection="best-val")
        changed = [options, *(replace(options, overrides=(*options.overrides, one)) for one in readings)]
        trainings = [replace(one, seed=seed) for one in changed for seed in range(seeds)]
        words = options.words("ablate", *(word for one in readings for word in ("--trial", one)), "--seeds",
                              str(seeds))  # fmt: skip
        session = prepare_training(trainings, words, runs, home, drawing)
        planned = {job.request.changed[-1:] for job in session.jobs if job.kind == "fold"}
        if idle := [one for one in readings if (one,) not in planned]:
            raise UsageError(f"--trial {idle[0]} changes nothing of these trainings")
        return session
    named = [name.strip() for name in variants.split(",") if name.strip()] or recipes.variants(options.method)
    names = dict.fromkeys([options.method, *([] if options.habits else named)])
    trainings = [replace(options, method=name, seed=seed) for name in names for seed in range(seeds)]
    kind = ["--leakage"] if options.habits else ["--variants", ",".join(names)]
    words = options.words("ablate", *kind, "--seeds", str(seeds))
    return prepare_training(trainings, words, runs, home, drawing)
