"""How one step of training is carried out: eagerly, or on CUDA as one captured graph.

Both do the same: loss, backward pass, optimizer, and updates of a module's buffers after that. A captured step launches
as one graph instead of some thousand kernels; its kernels are those of the eager step.
"""

import inspect
from collections.abc import Callable
from threading import Lock
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ferbench.training.device import Device
from ferbench.training.plan import Batch
from ferbench.training.schedule import Stage

Terms = dict[str, Tensor]  # scalar losses by name, "total" among them
Loss = Callable[[Batch], Terms]
After = Callable[[Batch], None]
_CAPTURE = Lock()
_WARM_UP = 3  # steps before a capture, in which libraries choose kernels and allocate memory
_BETA2 = 0.999  # of AdamW: the decay rate of the mean of squared gradients


def _uncompiled(kind: type[torch.optim.Optimizer]) -> Any:
    """Return an optimizer that loads no compiler.

    torch wraps these three methods to keep its compiler out of them, and for that loads the compiler: 1.5 seconds in
    every process that trains. Nothing here compiles an optimizer, so the methods inside of the wrappers do the same.
    """
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in ("add_param_group", "zero_grad", "step")}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(methods["step"])})


SGD, AdamW = _uncompiled(torch.optim.SGD), _uncompiled(torch.optim.AdamW)


class Eager:
    """Steps carried out operation by operation.

    after : called after each step of the optimizer, to update state without gradients, such as class centers. This
        state has to be in the module's buffers, or a checkpoint would not hold it.
    """

    captured: ClassVar[bool] = False

    def __init__(self, module: nn.Module, loss: Loss, stage: Stage, after: After | None = None):
        self.loss, self.after = loss, after
        self.optimizer = optimizer_of(module, stage, self.captured)

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

    captured = True

    def __init__(self, module: nn.Module, loss: Loss, stage: Stage, after: After | None = None):
        super().__init__(module, loss, stage, after)
        self.module = module
        self.graph: torch.cuda.CUDAGraph | None = None
        for group in self.optimizer.param_groups:
            group["lr"] = torch.tensor(stage.lr, device="cuda")  # a number would be baked into the graph

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
        for parameter in self.module.parameters():  # or the first step would differ from all others
            for name, value in initial_state(self.optimizer, parameter).items():
                self.optimizer.state[parameter].setdefault(name, value)
        state = [
            *self.module.state_dict().values(),
            *(value for entry in self.optimizer.state.values() for value in entry.values()),
        ]
        before = [tensor.clone() for tensor in state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                super().step(self.batch)
        torch.cuda.current_stream().wait_stream(side)
        for tensor, old in zip(state, before, strict=True):  # undo the steps of the warm-up
            tensor.copy_(old)
        self.graph = torch.cuda.CUDAGraph()
        # Other threads may run other trainings: one capture at a time, which their work does not disturb.
        with _CAPTURE, torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.terms = super().step(self.batch)


def engine(module: nn.Module, loss: Loss, stage: Stage, device: Device, after: After | None = None) -> Eager:
    """Return the object that carries out the steps on a device."""
    kind = Captured if device.captures else Eager
    return kind(module, loss, stage, after)


def optimizer_of(module: nn.Module, stage: Stage, captured: bool = False) -> torch.optim.Optimizer:
    """Return the optimizer of a schedule, with its weight decay on all parameters.

    "sgd" is SGD with momentum (section IV-C of the paper). "adamw" is Algorithm 2 of Loshchilov & Hutter 2019 with the
    momentum as β1, β2 = 0.999 and ε = 1e-8. captured : whether its steps are captured as a CUDA graph.
    """
    if stage.optimizer == "adamw":
        betas = stage.momentum, _BETA2
        return AdamW(
            module.parameters(), stage.lr, betas, weight_decay=stage.weight_decay, fused=True, capturable=captured
        )
    return SGD(module.parameters(), stage.lr, stage.momentum, weight_decay=stage.weight_decay, fused=True)


def initial_state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """The state of a parameter that torch itself creates only at the first step."""
    if isinstance(optimizer, torch.optim.SGD):
        return {"momentum_buffer": torch.zeros_like(parameter)}
    means = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), device=parameter.device), **means}
