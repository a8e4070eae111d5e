"""The options of a training command: what is trained, and where it runs. This module loads neither torch nor Ray."""

import shlex
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from ferbench.errors import UsageError

LOCAL, RAY = EXECUTORS = ("local", "ray")
PAPER_RECIPE = "paper"


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
        for name in ("amg", "pretrained"):
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
