"""The error of a row: its results compared with those of the same weights in float64 on the CPU."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

FRESH = 64  # inputs of the comparison, which are not those of the timing
STEPS = 20  # training steps whose losses are compared
PAIRS = 16  # in each of them
FIRST = 5  # steps that are compared one by one in every precision
# Largest error of logits relative to the largest logit; of a loss curve relative to the plain path's.
BOUNDS = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 5e-2}
LOSS_BOUNDS = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 5e-2}


@dataclass(frozen=True)
class Comparison:
    """The error of a row against float64, and the bound for its precision."""

    error: float
    agree: float | None  # share of inputs with the same most probable class; None for training
    bound: float

    @property
    def valid(self) -> bool:
        return self.error <= self.bound


def compare_logits(logits: Tensor, module: nn.Module, inputs: Tensor, precision: str) -> Comparison:
    """Compare the logits of a row for ``inputs`` (on the CPU) with those of ``module`` in float64."""
    with torch.no_grad():
        result = deepcopy(module).double()(inputs)
    exact = result if isinstance(result, Tensor) else result[0]
    error = float((logits.double() - exact).abs().max() / exact.abs().max())
    agree = float((logits.argmax(dim=1) == exact.argmax(dim=1)).double().mean())
    return Comparison(error, agree, BOUNDS[precision])


def compare_losses(losses: list[float], reference: list[float], precision: str) -> Comparison:
    """Compare the losses of the first steps with those of the plain path in fp32.

    In fp32 and tf32 each step is compared. Training is chaotic: rounding errors of bf16 grow with each step until
    single batches differ, though the training is as good. In bf16 the first ``FIRST`` steps are compared one by one,
    and the mean of all.
    """
    a, b = torch.tensor(losses, dtype=torch.float64), torch.tensor(reference, dtype=torch.float64)
    each = ((a - b) / b).abs()
    if precision == "bf16":
        each = torch.cat([each[:FIRST], ((a.mean() - b.mean()) / b.mean()).abs().unsqueeze(0)])
    return Comparison(float(each.max()), None, LOSS_BOUNDS[precision])  # a loss that is not a number is not valid
