"""What ``ferbench ablate`` trains: WS-LGAN and its variants with the same folds and seeds, trials, or leakage."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ferbench.errors import UsageError
from ferbench.execution.training import Session, TrainOptions, prepare_training
from ferbench.methods import recipes
from ferbench.training.schedule import Progress


def prepare_ablation(
    options: TrainOptions,
    variants: str,
    seeds: int,
    runs: Path | None,
    home: Path | None,
    drawing: Callable[[str], Progress],
    trials: tuple[str, ...] = (),
) -> Session:
    """Plan one training for each seed from 0 to ``seeds`` - 1 of WS-LGAN and of each variant, or of each trial.

    options : what all share; with ``leakage``, WS-LGAN alone is planned, trained and tested in four ways.
    variants : names of methods with commas between; empty: all that there are.
    trials : changes of the recipe as ``--set`` takes them, each tried alone beside WS-LGAN as it is, on held-out
        training subjects ("best-val"), so that no test set chooses any.
    Raises what :func:`prepare_training` raises; UsageError for an unknown variant, for a trial that changes nothing,
    or for two of variants, trials and ``leakage``.
    """
    if options.leakage + bool(variants) + bool(trials) > 1:
        raise UsageError("--leakage and --trial measure WS-LGAN, each alone: leave out the others, and --variants")
    if trials:
        options = replace(options, selection="best-val")
        changed = [options, *(replace(options, overrides=(*options.overrides, one)) for one in trials)]
        trainings = [replace(one, seed=seed) for one in changed for seed in range(seeds)]
        words = options.words("ablate", *(word for one in trials for word in ("--trial", one)), "--seeds", str(seeds))
        session = prepare_training(trainings, words, runs, home, drawing)
        planned = {job.request.changed[-1:] for job in session.jobs if job.kind == "fold"}
        if idle := [one for one in trials if (one,) not in planned]:
            raise UsageError(f"--trial {idle[0]} changes nothing of these trainings")
        return session
    named = [name.strip() for name in variants.split(",") if name.strip()] or recipes.variants(options.method)
    names = dict.fromkeys([options.method, *([] if options.leakage else named)])
    trainings = [replace(options, method=name, seed=seed) for name in names for seed in range(seeds)]
    kind = ["--leakage"] if options.leakage else ["--variants", ",".join(names)]
    words = options.words("ablate", *kind, "--seeds", str(seeds))
    return prepare_training(trainings, words, runs, home, drawing)
