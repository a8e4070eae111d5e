"""How a CPU computes the predictions of a command, as its options say. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ferbench.errors import UsageError

if TYPE_CHECKING:
    from ferbench.training.networks import Deployable
    from ferbench.training.prediction import PreparedNetwork

PRECISIONS = ("fp32", "bf16")
ENGINES = ("torch", "openvino")

# Images in a batch. On a CPU, the maps of 16 images in the largest dense block of `tiny` take 3.5 MB, which stay in the
# caches from one layer to the next; those of 128 take 28 MB and do not. On one core of an AMD EPYC, torch ran the four
# shipped networks about as fast with 8 as with 32 but slower with 4, and OpenVINO was slower with 32 than with 16.
# A GPU needs many images to be used fully.
ROWS = {"cpu": 16, "cuda": 512}


@dataclass(frozen=True)
class Arithmetic:
    """The options ``--precision`` and ``--engine`` of ``evaluate``, ``predict`` and ``contamination``.

    Raises UsageError for values that do not exist.
    """

    precision: str = "fp32"
    engine: str = "torch"

    def __post_init__(self) -> None:
        for name, value, known in (("precision", self.precision, PRECISIONS), ("engine", self.engine, ENGINES)):
            if value not in known:
                raise UsageError(f"unknown {name} {value!r}: predictions have {' and '.join(known)}")

    @property
    def identity(self) -> dict[str, str]:
        """The fields of a run's identity. "plain" is torch, as in older evaluations, whose predictions are the same."""
        return {"precision": self.precision, "engine": "plain" if self.engine == "torch" else self.engine}

    def prepare(self, module: Deployable) -> PreparedNetwork:
        """Raises what :class:`ferbench.training.prediction.PreparedNetwork` raises, and UsageError for bf16 on a
        processor that has to emulate it: a network then takes eight times as long as in fp32."""
        from ferbench.training.device import Device, has_bf16
        from ferbench.training.prediction import PreparedNetwork

        if (self.precision, self.engine) == ("bf16", "torch") and not has_bf16():  # OpenVINO asks the processor itself
            raise UsageError("this processor has no instructions for bf16, which would be slower than fp32 here")
        return PreparedNetwork(module, Device("cpu", self.precision), self.engine)

    def check_default(self, model: str) -> None:
        """Raise UsageError where these options are given for a model that is no network trained by ferbench."""
        if self != FP32:
            raise UsageError(f"--precision and --engine are for networks trained by ferbench, not for {model}")


FP32 = Arithmetic()
