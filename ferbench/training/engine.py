"""How one step of training is carried out: eagerly, or on CUDA as one captured graph.

Both do the same: loss, backward pass, SGD, and what a module does to its own buffers after that. A captured
step launches as one graph instead of some thousand kernels; its kernels are those of the eager step.
"""

from collections.abc import Callable
from threading import Lock
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from ferbench.training.device import Device
from ferbench.training.plan import Batch

Terms = dict[str, Tensor]  # scalar losses by name, "total" among them
Loss = Callable[[Batch], Terms]
After = Callable[[Batch], None]
_CAPTURE = Lock()
_WARM_UP = 3  # steps before a capture, so that libraries have chosen kernels and allocated their work spaces


class Schedule(Protocol):
    """The part of ``methods.Stage`` that the optimizer and the loop read."""

    epochs: int
    lr: float
    drops: tuple[float, ...]
    anneal: Literal["drops", "cosine"]
    ema: float
    momentum: float
    weight_decay: float


class Eager:
    """Steps carried out operation by operation.

    after : called once the optimizer is through with a step, for state that follows a rule of its own and no gradient,
        such as class centers. It lies in the module's buffers, or a checkpoint would not hold it.
    """

    def __init__(self, module: nn.Module, loss: Loss, schedule: Schedule, after: After | None = None):
        self.loss, self.after = loss, after
        self.optimizer = sgd(module, schedule)

    def rate(self, value: float) -> None:
        """Set the learning rate of the steps to come."""
        for group in self.optimizer.param_groups:
            group["lr"] = value

    def step(self, batch: Batch) -> Terms:
        """Carry out one step. Returns its loss terms, detached."""
        terms = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        self.optimizer.step()
        if self.after is not None:
            with torch.no_grad():
                self.after(batch)
        return {name: term.detach() for name, term in terms.items()}


class Captured(Eager):
    """Steps replayed from one CUDA graph, captured at the first batch. All batches must be of its shape.

    ``loss`` and ``after`` must neither read a value back to the host nor make tensors from the host's memory, and
    ``after`` must change buffers in place.
    """

    def __init__(self, module: nn.Module, loss: Loss, schedule: Schedule, after: After | None = None):
        super().__init__(module, loss, schedule, after)
        self.module = module
        self.graph: torch.cuda.CUDAGraph | None = None
        for group in self.optimizer.param_groups:
            group["lr"] = torch.tensor(schedule.lr, device="cuda")  # a number would be baked into the graph

    def rate(self, value: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"].fill_(value)

    def step(self, batch: Batch) -> Terms:
        if self.graph is None:
            self._capture(batch)
        assert self.graph is not None
        for name in Batch.INDICES:
            getattr(self.batch, name).copy_(getattr(batch, name))
        self.graph.replay()
        return {name: term.clone() for name, term in self.terms.items()}

    def _capture(self, batch: Batch) -> None:
        self.batch = batch.clone()
        for parameter in self.module.parameters():  # the first step would take another way than all others
            self.optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        state = [
            *self.module.state_dict().values(),
            *(entry["momentum_buffer"] for entry in self.optimizer.state.values()),
        ]
        before = [tensor.clone() for tensor in state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                super().step(self.batch)
        torch.cuda.current_stream().wait_stream(side)
        for tensor, old in zip(state, before, strict=True):  # warming up must leave no trace
            tensor.copy_(old)
        self.graph = torch.cuda.CUDAGraph()
        # Other threads may be at other trainings; one capture at a time, and their work does not spoil it.
        with _CAPTURE, torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.terms = super().step(self.batch)


def engine(module: nn.Module, loss: Loss, schedule: Schedule, device: Device, after: After | None = None) -> Eager:
    """Return what carries out the steps on a device."""
    kind = Captured if device.captures else Eager
    return kind(module, loss, schedule, after)


def sgd(module: nn.Module, schedule: Schedule) -> torch.optim.SGD:
    """Return the optimizer of section IV-C: SGD with momentum and weight decay on all parameters."""
    return torch.optim.SGD(
        module.parameters(), schedule.lr, schedule.momentum, weight_decay=schedule.weight_decay, fused=True
    )
