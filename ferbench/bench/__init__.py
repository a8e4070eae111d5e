"""Speed of inference, training and preparation, beside reference loops, with the error of results against float64.

The options are here, so that a misspelt name is refused without loading torch.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

from ferbench import DEFAULT_METHOD
from ferbench.errors import UsageError
from ferbench.methods import recipes
from ferbench.training.schedule import ENGINES, PRECISIONS

INFERENCE, TRAINING = ("inference", "fe", "amg"), ("step", "epoch")
WHATS = (*INFERENCE, *TRAINING, "prepare")
SCENARIOS = ("single-stream", "offline", "evaluate")
BACKENDS = {  # what each can time, in which precisions, where; exported files hold the whole network
    "torch": (WHATS, PRECISIONS, ("cpu", "cuda")),
    "onnxruntime": (("inference",), ("fp32",), ("cpu",)),
    "openvino": (("inference",), ("fp32", "bf16"), ("cpu",)),
}
BASELINES = ("naive", "strong")
MODES = {"quick": (3, 0.25), "standard": (7, 2.0)}  # blocks, seconds of a block


@dataclass(frozen=True)
class BenchOptions:
    """The options of ``ferbench bench``; every combination of the lists is one row."""

    whats: tuple[str, ...] = ("inference", "step")
    methods: tuple[str, ...] = (DEFAULT_METHOD,)
    presets: tuple[str, ...] = ("tiny",)
    engines: tuple[str, ...] = ("fast",)
    precisions: tuple[str, ...] = ("fp32",)
    backends: tuple[str, ...] = ("torch",)
    batches: tuple[int, ...] = (1, 32)
    scenarios: tuple[str, ...] = ("single-stream", "offline")
    baselines: tuple[str, ...] = ()
    device: str = "auto"
    threads: int | None = None
    mode: str = "standard"
    seed: int = 0
    accuracy: bool = False  # test trained weights too, in every precision and backend of inference
    home: Path | None = None  # the data home with FER2013, for this

    def check(self) -> None:
        """Raise UsageError for a name that does not exist and for a number that is too small, without torch."""
        for name, given, known in (
            ("benchmark", self.whats, WHATS),
            ("engine", self.engines, ENGINES),
            ("backend", self.backends, tuple(BACKENDS)),
            ("scenario", self.scenarios, SCENARIOS),
            ("baseline", self.baselines, BASELINES),
            ("mode", (self.mode,), tuple(MODES)),
        ):
            for value in given:
                if value not in known:
                    raise UsageError(f"unknown {name} {value!r}: it is {', '.join(known)}")
        if self.threads is not None and self.threads < 1:
            raise UsageError("--threads takes a number from 1")
        if any(batch < 1 for batch in self.batches):
            raise UsageError("--batch takes numbers from 1")
        for method, preset in product(self.methods, self.presets):
            recipes.resolve(method, preset, "ckplus")
