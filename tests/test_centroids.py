"""The start of 3DCNN-DAP: centroids of patches, and regression."""

import numpy as np
import pytest
import torch
from support.recognisers import other_set, training_set
from torch import nn

from ferbench.methods.sequences import networks
from ferbench.methods.sequences.recogniser import frames_of


@pytest.fixture(scope="module")
def initialised():
    """A network that is initialised from training sequences [24,5,48,48] of three classes, with these and their labels."""
    samples = training_set(frames=6)
    x, labels = frames_of(samples.videos, 5).float() / 255 - 0.5, torch.from_numpy(samples.labels)
    torch.manual_seed(0)
    network = networks.ActionPartCnn(5, 3, 4, deformed=True, centred=True)
    networks.initialise(network, x, labels, 7)
    return network, x, labels


def test_filters_answer_the_training_set_with_mean_0_and_deviation_1(initialised):
    network, x, _ = initialised
    with torch.no_grad():
        first = network.generic[0](x[:, None]).double()
        second = network.specific[0](network.generic(x[:, None])).double()
    for outputs in (first, second):
        outputs = outputs.transpose(0, 1).flatten(1)
        torch.testing.assert_close(outputs.mean(dim=1), torch.zeros(len(outputs)).double(), atol=1e-4, rtol=0)
        torch.testing.assert_close(
            outputs.std(dim=1, correction=0), torch.ones(len(outputs)).double(), atol=1e-3, rtol=0
        )


def test_generic_filters_have_no_mean_and_differ(initialised):
    weights = initialised[0].generic[0].weight.detach().flatten(1).double()
    lengths = weights.norm(dim=1)
    assert (weights.sum(dim=1).abs() < 1e-4 * lengths * weights.shape[1] ** 0.5).all()
    cosines = (weights @ weights.T) / (lengths[:, None] * lengths)
    assert (cosines - torch.eye(4)).abs().max() < 0.999


def test_a_part_s_filter_is_its_class_s_mean_patch_less_that_of_all_classes(initialised):
    network, x, labels = initialised
    with torch.no_grad():
        maps = network.generic(x[:, None]).double().numpy()  # [24,4,3,20,20]
    across, down = networks.PLACES[9]
    column, row = round(across * 12 - 0.5), round(down * 12 - 0.5)
    means = []
    for name in range(3):
        total, count = np.zeros((4, 3, 9, 9)), 0
        for sample in maps[labels.numpy() == name]:
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    total += sample[:, 0:3, row + dy : row + dy + 9, column + dx : column + dx + 9]
                    count += 1
        means.append(total / count)
    wanted = np.stack(means) - np.mean(means, axis=0)
    filters = network.specific[0].weight.detach().double().unflatten(0, (networks.PARTS, 3))[9].numpy()
    for mean, filter_ in zip(wanted, filters, strict=True):
        cosine = (mean * filter_).sum() / np.linalg.norm(mean) / np.linalg.norm(filter_)
        assert cosine == pytest.approx(1, abs=1e-5)


def test_connections_are_a_ridge_regression_on_the_classes(initialised):
    network, x, labels = initialised
    with torch.no_grad():
        scores = network.scores(x)[1].double()
    torch.testing.assert_close(network.centre.double(), scores.mean(dim=0), atol=1e-5, rtol=1e-4)
    part = 3
    centred = scores[:, part] - scores[:, part].mean(dim=0)
    wanted = nn.functional.one_hot(labels, 3).double()
    wanted = wanted - wanted.mean(dim=0)
    solutions = [
        torch.linalg.solve(centred.T @ centred + penalty * torch.eye(3).double(), centred.T @ wanted)
        for penalty in (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
    ]
    difference = min((network.partial[part].detach().double() - one).abs().max().item() for one in solutions)
    assert difference < 1e-3 * network.partial[part].detach().abs().max().item() + 1e-6


def test_the_initial_network_separates_the_classes_already(initialised):
    network, _, _ = initialised
    samples, labels = other_set(frames=6)
    with torch.no_grad():
        logits, _ = network(frames_of(samples.videos, 5).float() / 255 - 0.5)
    assert (logits.argmax(dim=1).numpy() == labels).mean() > 0.8


def test_a_class_without_samples_is_no_obstacle():
    samples = training_set(frames=6)
    x = frames_of(samples.videos, 5).float() / 255 - 0.5
    network = networks.ActionPartCnn(5, 4, 2, deformed=True, centred=True)
    networks.initialise(network, x, torch.from_numpy(samples.labels), 0)
    assert all(torch.isfinite(one).all() for one in network.state_dict().values())
    with torch.no_grad():
        assert torch.isfinite(network(x)[0]).all()
