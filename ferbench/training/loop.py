"""The one training loop: planned steps, epoch by epoch, resumable after every epoch."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock
from typing import TypeVar

import torch
from torch import nn
from torch.optim.swa_utils import PARAM_LIST, AveragedModel, get_ema_multi_avg_fn

from ferbench.training import checkpoint
from ferbench.training.checkpoint import TrainingState
from ferbench.training.device import Device
from ferbench.training.engine import After, Loss, Terms, engine
from ferbench.training.plan import Step
from ferbench.training.schedule import Progress, Stage


def learning_rate(stage: Stage, epoch: int) -> float:
    """Return the rate in ``epoch`` (from 0): lr × 0.1 for each drop, a fraction of the epochs, passed;
    or lr · ½(1 + cos(π · epoch / epochs)) (Loshchilov & Hutter 2017, Eq. 5)."""
    if stage.anneal == "cosine":
        return stage.lr * (1 + math.cos(math.pi * epoch / stage.epochs)) / 2
    return stage.lr * 0.1 ** sum(epoch >= round(drop * stage.epochs) for drop in stage.drops)


def fit(
    module: nn.Module,
    loss: Loss,
    plan: Callable[[int], list[Step]],
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

    loss : a step's loss terms, called with the module in train mode.
    plan : an epoch's steps from its number; the same for the same number, whatever ran before.
    saved : the checkpoint file; where it exists, training continues from it.
    validate : a score called in eval mode after each epoch, higher is better (never on test data).
    keep_best : end with the weights of the first epoch with the best score instead of the last epoch's.
    epochs : a folder that gets the weights after every epoch; a checkpoint of a training that kept fewer is not used.
    after : updates buffers of the module after each step (:class:`engine.Eager`).
    Raises FloatingPointError where the loss is no finite number.
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
    """The exponential moving average of all weights and batch statistics (Tarvainen & Valpola 2017) over some
    ``horizon`` steps: decay 1 - 1 / horizon, the plain mean of all steps until there are so many.

    With a constant decay, the first step's weights would keep a share of 1 / e after ``horizon`` steps.
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
    """Unwinds a thread whose training is no longer wanted. No Exception, so that its job is not recorded as failed."""


T = TypeVar("T")


def together(
    count: int, at_once: int, threads: int, train: Callable[[int, Progress], T], progress: Progress
) -> list[T]:
    """Return the results of ``count`` trainings of equal length, ``at_once`` at a time, each in a thread.

    threads : of the CPU for each, if several run at a time. train : called with its number, from 0, and a progress
    callback that it has to call at every step: it raises where Ctrl-C or an error in another training ends it.
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
