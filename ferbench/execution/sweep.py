"""``ferbench sweep``: a TOML file of methods × datasets × seeds × options, as trainings."""

import itertools
import math
from pathlib import Path
from typing import Any

from pydantic import Field

from ferbench.errors import DataError, UsageError
from ferbench.execution.training import TrainOptions
from ferbench.schema import Schema, read_toml, validated

_MOST = 100_000  # trainings of one sweep: more are a slip of the pen
Values = Any  # one value for all trainings, or a list of which each is taken in turn

# What decides a training may be swept; where and how it is made is said on the command line, once for all.
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

    def trainings(self) -> list[TrainOptions]:
        """One training for each combination, in the order: dataset, method, options, fields, seed."""
        options = {name.replace("-", "_"): values for name, values in self.options.items()}
        if unknown := sorted(options.keys() - _OPTIONS):
            raise UsageError(
                f"a sweep has no option {', '.join(unknown)}: there are "
                f"{', '.join(sorted(name.replace('_', '-') for name in _OPTIONS))}"
            )
        seeds = range(self.seeds) if isinstance(self.seeds, int) else self.seeds
        if not seeds:
            raise UsageError("a sweep without a seed trains nothing: seeds = 1, or a list of them")
        lists = [one for one in [*options.values(), *self.set.values()] if isinstance(one, list)]
        count = math.prod(len(one) for one in (self.methods, self.datasets, seeds, *lists))
        if not 0 < count <= _MOST:
            raise UsageError(f"a sweep of {count:,} trainings: one holds 1 to {_MOST:,}")
        return [
            TrainOptions(
                method=method,
                dataset=dataset,
                seed=seed,
                overrides=tuple(f"{k}={_word(v)}" for k, v in fields),
                **_as_given(dict(chosen)),
            )
            for dataset, method, chosen, fields, seed in itertools.product(
                self.datasets, self.methods, _each(options), _each(self.set), seeds
            )
        ]


def read_sweep(path: Path) -> list[TrainOptions]:
    """Read a sweep's file. Raises DataError for one that cannot be read, UsageError for options that there are not."""
    return validated(Sweep, read_toml(path), path).trainings()


def _each(values: dict[str, Values]) -> list[tuple[tuple[str, Any], ...]]:
    """All combinations of one value for each name."""
    choices = [
        [(name, one) for one in (value if isinstance(value, list) else [value])] for name, value in values.items()
    ]
    return list(itertools.product(*choices))


def _word(value: Any) -> str:
    """A value as ``--set`` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


_KINDS = {"epochs": int, "folds_file": str, "no_pretrain": bool}


def _as_given(options: dict[str, Any]) -> dict[str, Any]:
    """Options as TrainOptions has them. Raises DataError for a value of another kind."""
    for name, value in options.items():
        wanted = _KINDS.get(name, str)
        if type(value) is not wanted:
            raise DataError(f"the option {name.replace('_', '-')} of a sweep is a {wanted.__name__}, not {value!r}")
    if "folds_file" in options:
        options["folds_file"] = Path(options["folds_file"])
    if "no_pretrain" in options:
        options["pretrain"] = not options.pop("no_pretrain")
    return options
