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
        """Raises what :class:`ferbench.training.prediction.PreparedNetwork` raises."""
        from ferbench.training.device import Device
        from ferbench.training.prediction import PreparedNetwork

        return PreparedNetwork(module, Device("cpu", self.precision), self.engine)

    def check_default(self, model: str) -> None:
        """Raise UsageError where these options are given for a model that is no network trained by ferbench."""
        if self != FP32:
            raise UsageError(f"--precision and --engine are for networks trained by ferbench, not for {model}")


FP32 = Arithmetic()
