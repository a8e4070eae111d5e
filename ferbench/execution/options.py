"""The options of a training command: what is trained, and where it runs; and sweep files, which combine options.

This module loads neither torch nor Ray.
"""

import itertools
import math
import shlex
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field

from ferbench.errors import DataError, UsageError
from ferbench.schema import Schema, read_toml, validated

LOCAL, RAY = EXECUTORS = ("local", "ray")
PAPER_RECIPE = "paper"

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
    "pretrain_on",
}


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and the resources of it that each job takes.

    address : as Ray writes it; empty: a cluster on this machine that ends with the command. max_jobs : jobs at the same
    time, 0: as many as there is room for. threads : CPU threads of a job. gpus : GPUs of a job, may be a fraction.
    """

    address: str
    max_jobs: int
    threads: int
    gpus: float


@dataclass(frozen=True)
class Compute:
    """Where and how jobs are computed, as given on the command line."""

    device: str = "auto"
    precision: str = "auto"
    engine: str = "auto"
    threads: int | None = None
    jobs: str = "auto"
    executor: str = LOCAL
    address: str = ""
    gpus_per_job: float = 0.0

    def cluster(self) -> Cluster | None:
        """Return the cluster that runs the jobs; None if they run in processes of this machine.

        Raises UsageError for options that do not go together, and if Ray is not installed.
        """
        if self.executor not in EXECUTORS:
            raise UsageError(f"unknown executor {self.executor!r}: it is {' or '.join(EXECUTORS)}")
        if self.executor == LOCAL:
            if self.address or self.gpus_per_job:
                raise UsageError("--address and --gpus-per-job take --executor ray")
            return None
        if find_spec("ray") is None:
            raise UsageError("--executor ray needs Ray: `pip install 'ferbench[ray]'`, here and on every node")
        max_jobs = 0 if self.jobs == "auto" else parse_jobs(self.jobs)
        return Cluster(self.address, max_jobs, self.threads or 1, self.gpus_per_job)


@dataclass(frozen=True)
class TrainOptions:
    """The options of ``ferbench train``, as given. The fields are named as the options."""

    method: str
    dataset: str
    preset: str | None = None
    recipe: str = PAPER_RECIPE
    folds: str = ""
    rule: str | None = None
    folds_file: Path | None = None
    seed: int = 0
    epochs: int | None = None
    selection: str = "last"
    pretrain: bool = True
    amg: str = ""
    pretrained: str = ""
    pretrain_on: str = ""  # a protocol instead of the one that the dataset's protocol pre-trains on
    overrides: tuple[str, ...] = ()  # of --set
    compute: Compute = Compute()
    leakage: bool = False  # of `ferbench ablate --leakage`

    def command(self) -> str:
        """Return the command line that trains all folds: ``ferbench train METHOD …``."""
        return shlex.join(["ferbench", *replace(self, folds="").words("train", self.method)])

    def words(self, *command: str) -> list[str]:
        """Return the words of a command line: ``command``, then the options that are not the default.

        Options that do not change a result are left out.
        """
        words = [*command, "--dataset", self.dataset]
        default = TrainOptions(self.method, self.dataset)
        for name in ("preset", "recipe", "folds", "rule", "folds_file", "seed", "epochs", "selection"):
            words += _option(name, self, default)
        for name in ("precision", "engine"):
            words += _option(name, self.compute, default.compute)
        for name in ("amg", "pretrained", "pretrain_on"):
            words += _option(name, self, default)
        words += [] if self.pretrain else ["--no-pretrain"]
        for override in self.overrides:
            words += ["--set", override]
        return words

    @property
    def changes(self) -> tuple[str, ...]:
        """What the options change in the training that the preset describes, as reports print it."""
        return (
            *([f"recipe={self.recipe}"] if self.recipe != PAPER_RECIPE else []),
            *([f"epochs={self.epochs}"] if self.epochs is not None else []),
            *([f"attention maps of run {self.amg}"] if self.amg else []),
            *([f"pre-trained weights of run {self.pretrained}"] if self.pretrained else []),
            *([f"pre-trained on {self.pretrain_on}"] if self.pretrain_on else []),
            *self.overrides,
            *([] if self.pretrain else ["no pre-training"]),
        )


def _option(name: str, options: object, default: object) -> list[str]:
    value = getattr(options, name)
    return [] if value == getattr(default, name) else [f"--{name.replace('_', '-')}", str(value)]


def parse_jobs(text: str) -> int:
    """Return the number of ``--jobs``. Raises UsageError for anything else than a number from 1."""
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--jobs takes a number from 1, or auto, not {text!r}")
    return int(text)


def parse_folds(text: str) -> tuple[str, ...]:
    """Return names of folds, two digits each, from ``03``, ``1,4``, ``01-05`` or ``official``."""
    names: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        first, dash, last = part.partition("-")
        if first.isdigit() and (last.isdigit() or not dash):
            names += [f"{number:02d}" for number in range(int(first), int(last or first) + 1)]
        elif dash:
            raise UsageError(f"--folds takes numbers such as 03, 01,04 or 01-05, not {text!r}")
        else:
            names.append(part)
    return tuple(dict.fromkeys(names))


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
    lists = {name: value if isinstance(value, list) else [value] for name, value in values.items()}
    return list(itertools.product(*([(name, value) for value in choices] for name, choices in lists.items())))


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
