"""Batch normalisation with statistics computed once per channel, against float64 formulas and torch's own."""

import copy

import numpy as np
import pytest
import torch

from ferbench.methods.wslgan.densenet import DenseNet, concatenated, normalised, statistics


def batch(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 + 0.7


def test_it_is_the_formula():
    """Ioffe & Szegedy 2015, algorithm 1, then ReLU; channels from two tensors have the statistics of each."""
    first, second = batch(5, 3, 4, 4), batch(5, 2, 4, 4, seed=1)
    norm = torch.nn.BatchNorm2d(5).double()
    with torch.no_grad():
        norm.weight.copy_(batch(5, seed=2))
        norm.bias.copy_(batch(5, seed=3))
    own = concatenated([statistics(part, torch.float64, norm.eps) for part in (first, second)])
    found = normalised(norm, torch.cat((first, second), dim=1), own)
    x = np.concatenate((first.numpy(), second.numpy()), axis=1)
    mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    unit = (x - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    gamma, beta = (p.detach().numpy()[:, None, None] for p in (norm.weight, norm.bias))
    np.testing.assert_allclose(found.detach().numpy(), np.maximum(gamma * unit + beta, 0), atol=1e-12)
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.1 * mean, atol=1e-12)
    np.testing.assert_allclose(norm.running_var.numpy(), 0.9 + 0.1 * x.var(axis=(0, 2, 3), ddof=1), atol=1e-12)
    assert int(norm.num_batches_tracked) == 1


def test_a_variance_beside_a_large_mean_keeps_its_digits():
    x = (batch(4, 3, 8, 8) / 4 + 300).float()
    mean, variance, _ = statistics(x, torch.float32, 1e-5)
    np.testing.assert_allclose(mean.numpy(), x.double().numpy().mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(variance.numpy(), x.double().numpy().var(axis=(0, 2, 3)), rtol=1e-5)


def test_its_gradient_is_that_of_finite_differences():
    """With respect to the batch too, whose statistics change with it."""
    norm = torch.nn.BatchNorm2d(3).double()

    def call(x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(_Called(norm), {"norm.weight": gamma, "norm.bias": beta}, (x,))

    inputs = (batch(4, 3, 2, 2), batch(3, seed=4), batch(3, seed=5))
    assert torch.autograd.gradcheck(call, tuple(one.requires_grad_() for one in inputs))


class _Called(torch.nn.Module):
    def __init__(self, norm: torch.nn.BatchNorm2d):
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return normalised(self.norm, x, statistics(x, x.dtype, self.norm.eps))


@pytest.mark.parametrize(("kind", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_a_network_gives_what_torch_s_own_gives(kind, bound):
    """Outputs, gradients and running statistics after two batches."""
    torch.manual_seed(0)
    plain = DenseNet((2, 3, 2), 4).to(kind).train()
    sharing = copy.deepcopy(plain)
    for seed in (0, 1):
        images = batch(3, 1, 48, 48, seed=seed).to(kind)
        outputs = plain(images), sharing.sharing(images)
        for output in outputs:
            (output * output.detach().cos()).sum().backward()
        largest = float(outputs[0].detach().abs().max())
        torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=bound * largest)
    for (name, mine), (_, theirs) in zip(sharing.named_parameters(), plain.named_parameters(), strict=True):
        largest = float(theirs.grad.abs().max())
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=10 * bound * largest, msg=name)
    for (name, mine), (_, theirs) in zip(sharing.named_buffers(), plain.named_buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=bound, atol=bound, msg=name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own, at its own functions
def test_it_is_what_a_compiler_gets_in_training():
    """And torch's own in evaluation, and wherever nothing is compiled."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph.code)
        return graph.forward

    torch._dynamo.reset()
    network = DenseNet((1, 1, 1), 4)
    compiled = torch.compile(network, backend=backend)
    images = batch(2, 1, 48, 48).float()
    trained = compiled(images)
    compiled.eval()(images)
    assert ["batch_norm" in code for code in graphs] == [False, True]
    torch.testing.assert_close(trained, network.train()(images), rtol=0, atol=1e-5)
