"""The trainings of ``ferbench sweep``: a TOML file of methods × datasets × seeds × options."""

import itertools
import math
from pathlib import Path
from typing import Any

from pydantic import Field

from ferbench.errors import DataError, UsageError
from ferbench.execution.options import Compute, TrainOptions
from ferbench.schema import Schema, read_toml, validated

_MAX_TRAININGS = 100_000  # of one sweep: more are a typing error
Values = Any  # one value for all trainings, or a list of values that are combined with all others

# Options of `ferbench train` that a sweep may vary. Where all jobs run is an option of `ferbench sweep`.
_OPTIONS = {
    "preset",
    "recipe",
    "folds",
    "rule",
    "folds_file",
    "epochs",
    "selection",
    "no_pretrain",
    "amg",
    "pretrained",
}


class Sweep(Schema):
    """The schema of a sweep's file. Every list multiplies the trainings."""

    methods: list[str] = Field(min_length=1)
    datasets: list[str] = Field(min_length=1)
    seeds: int | list[int] = 1  # N: the seeds 0 to N-1
    options: dict[str, Values] = Field(default_factory=dict)  # of `ferbench train`, by their names
    set: dict[str, Values] = Field(default_factory=dict)  # fields of the recipe, as `--set` takes them

    def trainings(self, compute: Compute) -> list[TrainOptions]:
        """Return one training for each combination, in the order: dataset, method, options, fields, seed."""
        options = {name.replace("-", "_"): values for name, values in self.options.items()}
        if unknown := sorted(options.keys() - _OPTIONS):
            raise UsageError(
                f"a sweep has no option {', '.join(unknown)}: there are "
                f"{', '.join(sorted(name.replace('_', '-') for name in _OPTIONS))}"
            )
        seeds = range(self.seeds) if isinstance(self.seeds, int) else self.seeds
        if not seeds:
            raise UsageError("a sweep without a seed trains nothing: seeds = 1, or a list of them")
        lists = [values for values in [*options.values(), *self.set.values()] if isinstance(values, list)]
        count = math.prod(len(values) for values in (self.methods, self.datasets, seeds, *lists))
        if not 0 < count <= _MAX_TRAININGS:
            raise UsageError(f"a sweep of {count:,} trainings: one holds 1 to {_MAX_TRAININGS:,}")
        return [
            TrainOptions(
                method=method,
                dataset=dataset,
                seed=seed,
                overrides=tuple(f"{name}={_word(value)}" for name, value in fields),
                compute=compute,
                **_typed(dict(chosen)),
            )
            for dataset, method, chosen, fields, seed in itertools.product(
                self.datasets, self.methods, _combinations(options), _combinations(self.set), seeds
            )
        ]


def read_sweep(path: Path, compute: Compute = Compute()) -> list[TrainOptions]:
    """Return the trainings of a sweep's file, which run where ``compute`` says.

    Raises DataError for a file that cannot be read, UsageError for unknown options.
    """
    return validated(Sweep, read_toml(path), path).trainings(compute)


def _combinations(values: dict[str, Values]) -> list[tuple[tuple[str, Any], ...]]:
    """Return all combinations of one value for each name."""
    choices = [
        [(name, one) for one in (value if isinstance(value, list) else [value])] for name, value in values.items()
    ]
    return list(itertools.product(*choices))


def _word(value: Any) -> str:
    """Return a value as ``--set`` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


_TYPES = {"epochs": int, "folds_file": str, "no_pretrain": bool}


def _typed(options: dict[str, Any]) -> dict[str, Any]:
    """Return options as TrainOptions has them. Raises DataError for a value of another type."""
    for name, value in options.items():
        wanted = _TYPES.get(name, str)
        if type(value) is not wanted:
            raise DataError(f"the option {name.replace('_', '-')} of a sweep is a {wanted.__name__}, not {value!r}")
    if "folds_file" in options:
        options["folds_file"] = Path(options["folds_file"])
    if "no_pretrain" in options:
        options["pretrain"] = not options.pop("no_pretrain")
    return options
