"""The form in which a trained network is handed on: to be exported, timed, or shown pictures."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from ferbench.errors import DataError, UsageError
from ferbench.runs.record import BEST_TEST, Record
from ferbench.training.checkpoint import unpack


class Deployable(nn.Module):
    """A trained method as one frozen module in eval mode: images uint8 [N,1,48,48] in 0..255 → logits [N,K] first.

    What scales and normalises grey levels is inside. outputs : names of what it gives. parts : what each attention map
    [N,P,H,W] behind the logits looks at; empty where there are none.
    """

    parts: ClassVar[tuple[str, ...]] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what :meth:`forward` returns, in its order."""
        return ("logits",)

    def for_export(self) -> nn.Module:
        """The same in its form of fewest operations."""
        return self


class Deployed(Deployable):
    """An ordinary network that takes grey levels in [0,1], [N,1,48,48], and gives logits."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images uint8 [N,1,48,48] → ``(logits [N,K],)`` in the precision of the weights."""
        weight = next(self.network.parameters())
        return (self.network(images.to(weight.dtype) / 255),)


def check_kept(record: Record) -> None:
    """Raise UsageError for a run that keeps no weights."""
    if record.identity.selection == BEST_TEST:
        raise UsageError(f"run {record.key} measures data leakage and keeps no weights: take that of the last epoch")
    if record.error:
        raise UsageError(f"run {record.key} failed: the command that trained it tries again")


def load_weights(module: nn.Module, weights: Path) -> None:
    """Put a run's weights into its network. Raises DataError where they are missing, damaged or of another shape."""
    tensors, _ = unpack(weights)
    try:
        module.load_state_dict(tensors)
    except RuntimeError:
        raise DataError(f"{weights} does not fit the run's recipe: delete its run folder and train again") from None
