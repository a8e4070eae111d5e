"""The training loop, resumable after every epoch, and its steps: eager, or on CUDA one captured graph.

Both kinds of step compute the loss, its gradients, the optimizer's update and updates of buffers after that. A captured
step launches one graph instead of some thousand kernels; the kernels are those of the eager step.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import PARAM_LIST, AveragedModel, get_ema_multi_avg_fn

from ferbench.training import checkpoint
from ferbench.training.checkpoint import TrainingState
from ferbench.training.device import Device
from ferbench.training.plan import Batch, EpochPlan
from ferbench.training.schedule import Progress, Stage

Terms = dict[str, Tensor]  # scalar losses by name, "total" among them
Loss = Callable[[Batch], Terms]
After = Callable[[Batch], None]
_CAPTURE = Lock()
_WARM_UP = 3  # steps before a capture, in which libraries choose kernels and allocate memory
_SMALL = 1e-12  # added to the length of a gradient, which may be 0
_DECAY = 0.9  # of an exponential schedule: that of SCN, RUL, EAC and Ada-DF
_BETA2 = 0.999  # of AdamW: the decay rate of the mean of squared gradients


def _uncompiled(kind: type[torch.optim.Optimizer]) -> Any:
    """Return an optimizer that loads no compiler.

    torch wraps these three methods to keep its compiler out of them, and for that loads the compiler: 1.5 seconds in
    every process that trains. Nothing here compiles an optimizer, so the wrapped methods themselves do the same.
    """
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in ("add_param_group", "zero_grad", "step")}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(methods["step"])})


SGD, AdamW = _uncompiled(torch.optim.SGD), _uncompiled(torch.optim.AdamW)


class Eager:
    """Training steps, executed operation by operation.

    after : called after each step of the optimizer to update state without gradients, such as class centers. The state
        has to be in buffers of the module, which checkpoints contain.
    """

    captured: ClassVar[bool] = False

    def __init__(self, module: nn.Module, loss: Loss, stage: Stage, after: After | None = None):
        self.module, self.loss, self.after, self.radius = module, loss, after, stage.sam
        self.optimizer = optimizer_of(module, stage, self.captured)

    def rate(self, value: float) -> None:
        """Set the learning rate of the next steps."""
        for group in self.optimizer.param_groups:
            group["lr"] = value * group.get("scale", 1.0)

    def step(self, batch: Batch) -> Terms:
        """Carry out one step. Returns its loss terms, detached."""
        terms = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        if self.radius:
            self._sharpness_aware(batch)
        self.optimizer.step()
        if self.after is not None:
            with torch.no_grad():
                self.after(batch)
        return {name: term.detach() for name, term in terms.items()}

    def _sharpness_aware(self, batch: Batch) -> None:
        """Replace the gradient at the weights w by that at w + ρ g / ‖g‖₂ (Foret et al. 2021, Algorithm 1). Running
        statistics of batch normalisation are those of the first pass, as they belong to w."""
        gradients = {one: one.grad for one in self.module.parameters() if one.grad is not None}
        before = {one: one.detach().clone() for one in gradients}
        with torch.no_grad():
            share = self.radius / (torch.stack([gradient.norm() for gradient in gradients.values()]).norm() + _SMALL)
            for parameter, gradient in gradients.items():
                parameter.add_(gradient * share)
        self.optimizer.zero_grad(set_to_none=True)
        with _without_running_statistics(self.module):
            self.loss(batch)["total"].backward()
        with torch.no_grad():
            for parameter, value in before.items():
                parameter.copy_(value)


class Captured(Eager):
    """Steps replayed from one CUDA graph, captured at the first batch. All batches must have the same shape.

    ``loss`` and ``after`` must neither read values back to the host nor create tensors from host memory, and ``after``
    must change buffers in place.
    """

    captured = True

    def __init__(self, module: nn.Module, loss: Loss, stage: Stage, after: After | None = None):
        super().__init__(module, loss, stage, after)
        self.graph: torch.cuda.CUDAGraph | None = None
        for group in self.optimizer.param_groups:
            group["lr"] = torch.tensor(stage.lr, device="cuda")  # a float would be a constant of the graph

    def rate(self, value: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"].fill_(value * group.get("scale", 1.0))

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
        for parameter in self.module.parameters():  # or the first step would differ from the others
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
        # Other threads may run other trainings: one capture at a time, and only this thread's work is captured.
        with _CAPTURE, torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.terms = super().step(self.batch)


@runtime_checkable
class HasParameterGroups(Protocol):
    """A module whose parameters have different learning rates."""

    def parameter_groups(self, stage: Any) -> list[dict[str, Any]]:
        """The groups of all parameters, each with its ``scale``. stage : the schedule."""


@contextmanager
def _without_running_statistics(module: nn.Module) -> Iterator[None]:
    """Batch normalisation leaves its running statistics as they are within the block."""
    norms = [norm for norm in module.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def engine(module: nn.Module, loss: Loss, stage: Stage, device: Device, after: After | None = None) -> Eager:
    """Return the object that executes the steps on a device. A module with ``captured = False`` has steps that a graph
    cannot hold, and is executed operation by operation."""
    kind = Captured if device.captures and getattr(module, "captured", True) else Eager
    return kind(module, loss, stage, after)


def optimizer_of(module: nn.Module, stage: Stage, captured: bool = False) -> torch.optim.Optimizer:
    """Return the optimizer of a schedule, with its weight decay on all parameters.

    "sgd" is SGD with momentum (section IV-C of the paper). "adamw" is Algorithm 2 of Loshchilov & Hutter 2019 with the
    momentum as β1, β2 = 0.999 and ε = 1e-8. captured : whether its steps are captured as a CUDA graph.

    A module may have a method ``parameter_groups``, which returns torch's groups of parameters; the learning rate of a
    group is that of the schedule times its ``scale``.
    """
    parameters = module.parameter_groups(stage) if isinstance(module, HasParameterGroups) else module.parameters()
    if stage.optimizer == "adamw":
        betas = stage.momentum, _BETA2
        return AdamW(parameters, stage.lr, betas, weight_decay=stage.weight_decay, fused=True, capturable=captured)
    return SGD(parameters, stage.lr, stage.momentum, weight_decay=stage.weight_decay, fused=True)


def initial_state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """The optimizer's state of a parameter, which torch creates only at the first step."""
    if isinstance(optimizer, torch.optim.SGD):
        return {"momentum_buffer": torch.zeros_like(parameter)}
    means = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), device=parameter.device), **means}


def learning_rate(stage: Stage, epoch: int) -> float:
    """Return the rate in ``epoch`` (from 0): lr × 0.1 for each drop, a fraction of the epochs, passed;
    or lr · ½(1 + cos(π · epoch / epochs)) (Loshchilov & Hutter 2017, Eq. 5); or lr · 0.9^epoch.

    With a warm-up of w epochs the rates of these are lr · (epoch + 1) / (w + 1), and the latter two begin after it.
    """
    if epoch < stage.warmup:
        return stage.lr * (epoch + 1) / (stage.warmup + 1)
    if stage.anneal == "cosine":
        return stage.lr * (1 + math.cos(math.pi * (epoch - stage.warmup) / (stage.epochs - stage.warmup))) / 2
    if stage.anneal == "exponential":
        return stage.lr * _DECAY ** (epoch - stage.warmup)
    return stage.lr * 0.1 ** sum(epoch >= round(drop * stage.epochs) for drop in stage.drops)


def fit(
    module: nn.Module,
    loss: Loss,
    plan: EpochPlan,
    stage: Stage,
    device: Device,
    saved: Path,
    progress: Progress,
    validate: Callable[[], float] | None = None,
    keep_best: bool = False,
    epochs: Path | None = None,
    after: After | None = None,
) -> list[dict[str, float]]:
    """Train ``module`` and return one row of history an epoch.

    loss : returns the loss terms of a step; the module is in train mode.
    plan : the steps of an epoch, which depend on its number alone.
    saved : the checkpoint file, from which training continues if it exists.
    validate : a score after each epoch, higher is better (never on test data); the module is in eval mode.
    keep_best : end with the weights of the first epoch of the best score, not with those of the last epoch.
    epochs : a folder for the weights of every epoch; a checkpoint is ignored if weights of its epochs are missing.
    after : updates buffers of the module after each step (:class:`Eager`).
    Raises FloatingPointError if the loss is not finite.
    """
    steps = engine(module, loss, stage, device, after)
    per_epoch = len(plan(0))
    averaged = _averaged(module, stage.ema * per_epoch) if stage.ema else None
    if epochs is not None and not checkpoint.kept(epochs, done := checkpoint.epochs_done(saved)) and done:
        saved.unlink()
    state = checkpoint.restore(saved, module, steps.optimizer, averaged)
    for epoch in range(state.epoch, stage.epochs):
        rate = learning_rate(stage, epoch)
        steps.rate(rate)
        module.train()
        sums: Terms = {}
        for number, step in enumerate(plan(epoch)):
            for name, term in steps.step(step.on(device.name)).items():
                sums[name] = sums.get(name, torch.zeros_like(term)) + term
            if averaged is not None:
                averaged.update_parameters(module)
            progress(epoch * per_epoch + number + 1, stage.epochs * per_epoch, _line(state))
        row = {"epoch": epoch + 1, "lr": rate, **{f"loss_{k}": float(v) / per_epoch for k, v in sums.items()}}
        if not math.isfinite(row["loss_total"]):
            raise FloatingPointError(
                f"the loss is {row['loss_total']} in epoch {epoch + 1} of {stage.epochs}: a "
                f"lower learning rate than {rate:g} may do"
            )
        with _in_place(averaged, module):
            if validate is not None:
                module.eval()
                row["validation_accuracy"] = validate()
            if epochs is not None:
                checkpoint.keep(epochs, epoch + 1, module)
            _advance(state, row, module, keep_best)
        checkpoint.save(saved, module, steps.optimizer, state, averaged)
    if keep_best:
        module.load_state_dict(state.best)
    elif averaged is not None:
        module.load_state_dict(averaged.module.state_dict())
    module.eval()
    return state.history


def _averaged(module: nn.Module, horizon: float) -> AveragedModel:
    """The exponential moving average of all weights and batch statistics (Tarvainen & Valpola 2017) with the decay
    1 - 1 / horizon; for the first ``horizon`` steps the plain mean, because with a constant decay the weights of the
    first step would have a share of 1 / e after ``horizon`` steps.
    """

    def update(averages: PARAM_LIST, current: PARAM_LIST, before: torch.Tensor | int) -> None:
        share = 1 / min(int(before) + 1, max(horizon, 1.0))
        get_ema_multi_avg_fn(1 - share)(averages, current, before)

    return AveragedModel(module, multi_avg_fn=update, use_buffers=True)


@contextmanager
def _in_place(averaged: AveragedModel | None, module: nn.Module) -> Iterator[None]:
    """``module`` has the averaged weights within the block."""
    if averaged is None:
        yield
        return
    weights = _copied(module)
    module.load_state_dict(averaged.module.state_dict())
    yield
    module.load_state_dict(weights)


def _advance(state: TrainingState, row: dict[str, float], module: nn.Module, keep_best: bool) -> None:
    state.epoch += 1
    state.history.append(row)
    if keep_best and row["validation_accuracy"] > state.best_score:
        state.best_score = row["validation_accuracy"]
        state.best = _copied(module)


def _copied(module: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the module's state."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _line(state: TrainingState) -> str:
    if not state.history:
        return ""
    last = state.history[-1]
    validation = f", validation {last['validation_accuracy']:.1%}" if "validation_accuracy" in last else ""
    return f"epoch {last['epoch']:.0f}: loss {last['loss_total']:.3f}{validation}"


class Dismissed(BaseException):
    """Ends a thread whose training is cancelled. Not an Exception, so that its job is not recorded as failed."""


T = TypeVar("T")


def train_in_parallel(
    count: int, at_once: int, threads: int, train: Callable[[int, Progress], T], progress: Progress
) -> list[T]:
    """Return the results of ``count`` trainings of equal length, ``at_once`` at a time, each in a thread.

    threads : CPU threads of each training if several run at a time. train : gets its number, from 0, and a progress
    callback that it has to call at every step, and that raises :class:`Dismissed` after Ctrl-C or an error in another
    training.
    """
    steps, dismissed, lock = [0] * count, Event(), Lock()

    def progress_of(number: int) -> Progress:
        def update(done: int, total: int, text: str) -> None:
            if dismissed.is_set():
                raise Dismissed
            with lock:
                steps[number] = done
                progress(sum(steps), count * total, text)

        return update

    if at_once == 1:
        return [train(number, progress_of(number)) for number in range(count)]

    def train_in_thread(number: int) -> T:
        torch.set_num_threads(threads)  # OpenMP keeps the number for each thread separately
        return train(number, progress_of(number))

    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(train_in_thread, number) for number in range(count)]
        try:
            return [future.result() for future in futures]
        except BaseException:
            dismissed.set()
            raise
