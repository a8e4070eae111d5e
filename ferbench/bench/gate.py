"""The correctness gate: a row's results beside those of the same weights in float64 on the CPU."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

FRESH = 64  # inputs that the timing has not seen
STEPS = 20  # training steps whose losses are compared
# Largest error of logits relative to the largest logit; of a loss curve relative to float64's (tiers P2, P3).
BOUNDS = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 5e-2}
LOSS_BOUNDS = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 5e-2}


@dataclass(frozen=True)
class Verdict:
    """How far a row is from float64, and how far its precision may be."""

    error: float
    agree: float | None  # share of inputs with the same most probable class; of training there is none
    bound: float

    @property
    def valid(self) -> bool:
        return self.error <= self.bound


def of_logits(found: Tensor, module: nn.Module, inputs: Tensor, precision: str) -> Verdict:
    """Hold the logits that a row gave for ``inputs`` (on the CPU) against ``module`` in float64."""
    with torch.no_grad():
        result = deepcopy(module).double()(inputs)
    wanted = result if isinstance(result, Tensor) else result[0]
    error = float((found.double() - wanted).abs().max() / wanted.abs().max())
    agree = float((found.argmax(dim=1) == wanted.argmax(dim=1)).double().mean())
    return Verdict(error, agree, BOUNDS[precision])


def of_losses(found: list[float], wanted: list[float], precision: str) -> Verdict:
    """Hold the losses of the first steps against those of the plain path in fp32."""
    a, b = torch.tensor(found, dtype=torch.float64), torch.tensor(wanted, dtype=torch.float64)
    error = float(((a - b) / b).abs().max())  # not a number where any of them is none, and then not valid
    return Verdict(error, None, LOSS_BOUNDS[precision])
