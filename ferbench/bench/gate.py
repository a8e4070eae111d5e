"""The correctness gate: a row's results beside those of the same weights in float64 on the CPU."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

FRESH = 64  # inputs that the timing has not seen
STEPS = 20  # training steps whose losses are compared
PAIRS = 16  # in each of them
FIRST = 5  # of them are compared one by one whatever the precision
# Largest error of logits relative to the largest logit; of a loss curve relative to the plain path's.
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
    """Hold the losses of the first steps against those of the plain path in fp32.

    In fp32 and tf32 each step is compared. Training is chaotic: what bf16 rounds away at the first step grows
    with each, until single batches differ though the training is as good. There the first ``FIRST`` steps are
    compared one by one, and of all of them the mean.
    """
    a, b = torch.tensor(found, dtype=torch.float64), torch.tensor(wanted, dtype=torch.float64)
    each = ((a - b) / b).abs()
    if precision == "bf16":
        each = torch.cat([each[:FIRST], ((a.mean() - b.mean()) / b.mean()).abs().unsqueeze(0)])
    return Verdict(float(each.max()), None, LOSS_BOUNDS[precision])  # a loss that is not a number is not valid
