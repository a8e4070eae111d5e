"""What schedules have beyond the paper: warm-up, sharpness-aware minimisation, groups of learning rates."""

import copy

import pytest
import torch
from torch import nn

from ferbench.training.loop import Eager, learning_rate, optimizer_of
from ferbench.training.schedule import Stage


def stage(**fields) -> Stage:
    given = {"epochs": 10, "lr": 0.1, "drops": (), "batch": 4, "momentum": 0.0, "weight_decay": 0.0, "augment": "none"}
    return Stage(**given | fields)


def test_the_rate_rises_linearly_and_falls_by_a_cosine_after_that():
    rates = [learning_rate(stage(anneal="cosine", warmup=3), epoch) for epoch in range(10)]
    assert rates[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rates[3:] == pytest.approx([learning_rate(stage(anneal="cosine", epochs=7), epoch) for epoch in range(7)])
    rates = [learning_rate(stage(drops=(0.5,), warmup=1), epoch) for epoch in (0, 1, 5)]
    assert rates == pytest.approx([0.05, 0.1, 0.01])
    rates = [learning_rate(stage(anneal="exponential", warmup=1), epoch) for epoch in range(4)]
    assert rates == pytest.approx([0.05, 0.1, 0.09, 0.081])


def test_later_fields_are_in_an_identity_only_where_they_are_set():
    assert not {"warmup", "sam", "optimizer"} & stage().model_dump().keys()
    assert stage(warmup=2, sam=0.05).model_dump().items() >= {"warmup": 2, "sam": 0.05}.items()
    assert Stage.model_validate(stage(sam=0.05).model_dump()) == stage(sam=0.05)


class _Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).relu())


def test_a_sharpness_aware_step_takes_the_gradient_at_the_weights_that_are_worst_nearby():
    network, x = _Network(), torch.randn(8, 3)
    expected = copy.deepcopy(network)
    steps = Eager(network, lambda batch: {"total": network(batch).square().mean()}, stage(sam=0.05))
    found = steps.step(x)
    used = [one for name, one in expected.named_parameters() if not name.startswith("unused")]
    loss = expected(x).square().mean()
    statistics = {name: one.clone() for name, one in expected.named_buffers()}
    gradients = torch.autograd.grad(loss, used)
    length = torch.cat([one.flatten() for one in gradients]).norm()
    worst = copy.deepcopy(expected)
    with torch.no_grad():
        of_worst = [one for name, one in worst.named_parameters() if not name.startswith("unused")]
        for parameter, gradient in zip(of_worst, gradients, strict=True):
            parameter += 0.05 * gradient / length
    gradients = torch.autograd.grad(worst(x).square().mean(), of_worst)
    with torch.no_grad():
        for parameter, gradient in zip(used, gradients, strict=True):
            parameter -= 0.1 * gradient
    torch.testing.assert_close(found["total"], loss.detach())
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter, expected.get_parameter(name))
    for name in ("norm.running_mean", "norm.running_var"):
        torch.testing.assert_close(network.get_buffer(name), statistics[name])
    assert network.norm.momentum == 0.1


def test_groups_of_parameters_have_the_rate_times_their_scale():
    network = _Network()
    network.parameter_groups = lambda schedule: [
        {"params": list(network.first.parameters()), "scale": 0.5},
        {"params": list(network.last.parameters()), "scale": 2.0},
    ]
    steps = Eager(network, lambda batch: {"total": network(batch).mean()}, stage(optimizer="adamw"))
    steps.rate(0.01)
    assert [group["lr"] for group in steps.optimizer.param_groups] == [0.005, 0.02]
    assert len(optimizer_of(_Network(), stage()).param_groups) == 1
