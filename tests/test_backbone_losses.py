"""The losses of networks of timm beside their formulas in float64."""

import math

import numpy as np
import pytest
import torch

from ferbench.methods.backbone.losses import (
    add_up_loss,
    affinity_loss,
    branch_weights,
    class_maps,
    consistency_loss,
    divergence,
    first_distributions,
    fused_distribution,
    mixed_by_uncertainty,
    mixed_cross_entropy,
    partition_loss,
    rank_regularisation,
    relabelled,
)

RNG = np.random.default_rng(0)
ROWS, CLASSES = 7, 4
LOGITS, LABELS = RNG.normal(size=(ROWS, CLASSES)) * 2, np.arange(ROWS) % CLASSES
SECOND = RNG.permutation(ROWS)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array)


def close(found: torch.Tensor, expected: object) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_with_mixup_and_smoothing(smoothing):
    share, log = RNG.random(ROWS), np.log(softmax(LOGITS))
    expected = 0.0
    for row in range(ROWS):
        target = np.full(CLASSES, smoothing / CLASSES)
        target[LABELS[row]] += (1 - smoothing) * share[row]
        target[LABELS[SECOND[row]]] += (1 - smoothing) * (1 - share[row])
        expected -= (target * log[row]).sum() / ROWS
    found = mixed_cross_entropy(tensor(LOGITS), tensor(LABELS), tensor(SECOND), tensor(share), smoothing)
    close(found, expected)


def test_rank_regularisation_compares_the_means_of_two_groups():
    weights = np.array([0.9, 0.2, 0.5, 0.4, 0.6, 0.3, 0.7])
    high = int(ROWS * 0.7)
    ordered = np.sort(weights)[::-1]
    difference = ordered[:high].mean() - ordered[high:].mean()
    close(rank_regularisation(tensor(weights), 0.7, 0.5), 0.5 - difference)
    close(rank_regularisation(tensor(weights), 0.7, 0.15), 0)  # the difference is larger than the margin
    close(rank_regularisation(tensor(weights[:1]), 0.7, 0.15), 0)


def test_a_label_gives_way_to_a_prediction_that_exceeds_it_by_the_margin():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.45, 0.3, 0.25]])
    found = relabelled(tensor(np.log(probabilities)), tensor(np.array([1, 1, 1, 0])), 0.25)
    assert found.tolist() == [1, 0, 1, 0]


def test_the_more_uncertain_image_has_the_larger_share_of_a_mixture():
    features, uncertainty = RNG.normal(size=(ROWS, 3)), RNG.random(ROWS) + 0.1
    expected = np.empty_like(features)
    for i, j in enumerate(SECOND):
        expected[i] = (uncertainty[i] * features[i] + uncertainty[j] * features[j]) / (uncertainty[i] + uncertainty[j])
    close(mixed_by_uncertainty(tensor(features), tensor(uncertainty), tensor(SECOND)), expected)


def test_the_add_up_loss_looks_for_both_classes_of_a_mixture():
    log = np.log(softmax(LOGITS))
    expected = -np.mean([log[i, LABELS[i]] + log[i, LABELS[SECOND[i]]] for i in range(ROWS)]) / 2
    close(add_up_loss(tensor(LOGITS), tensor(LABELS), tensor(SECOND)), expected)


def test_maps_of_classes_and_of_their_mirror_images_agree():
    maps, weights = RNG.normal(size=(2, 3, 4, 5)), RNG.normal(size=(CLASSES, 3))
    expected = np.zeros((2, CLASSES, 4, 5))
    for k in range(CLASSES):
        for c in range(3):
            expected[:, k] += weights[k, c] * maps[:, c]
    learned = tensor(weights).requires_grad_()
    found = class_maps(tensor(maps).requires_grad_(), learned)
    close(found, expected)
    other = RNG.normal(size=expected.shape)
    close(consistency_loss(tensor(expected), tensor(other)), np.mean((expected - other[..., ::-1]) ** 2))
    close(consistency_loss(tensor(expected), tensor(expected[..., ::-1].copy())), 0)
    found.sum().backward()
    assert learned.grad is None  # the weights of the classifier are constants of its maps


def test_affinity_is_the_distance_to_the_own_center_in_units_of_the_variance_of_centers():
    features, centers = RNG.normal(size=(ROWS, 5)), RNG.normal(size=(CLASSES, 5))
    distances = [((features[i] - centers[LABELS[i]]) ** 2).sum() for i in range(ROWS)]
    expected = np.mean(distances) / centers.var(axis=0, ddof=1).sum()
    close(affinity_loss(tensor(features), tensor(LABELS), tensor(centers)), expected)


def test_partition_falls_with_the_variance_over_heads():
    heads = RNG.normal(size=(ROWS, 3, 5))
    close(partition_loss(tensor(heads)), np.log(1 + 3 / heads.var(axis=1, ddof=1).mean()))
    assert torch.isfinite(partition_loss(torch.zeros(2, 3, 5)))


def test_distributions_are_fused_by_attention_weights_of_a_fixed_range():
    weights, classes = RNG.random(ROWS), softmax(RNG.normal(size=(ROWS, CLASSES)))
    scaled = (weights - weights.min()) / (weights.max() - weights.min()) * 0.8 + 0.2
    expected = (1 - scaled)[:, None] * softmax(LOGITS) + scaled[:, None] * classes
    found = fused_distribution(tensor(LOGITS), tensor(classes), tensor(weights), 0.2, 1.0)
    close(found, expected)
    close(found.sum(dim=1), np.ones(ROWS))
    equal = fused_distribution(tensor(LOGITS), tensor(classes), torch.ones(ROWS, dtype=torch.float64), 0.2, 1.0)
    close(equal, 0.8 * softmax(LOGITS) + 0.2 * classes)
    other = RNG.normal(size=(ROWS, CLASSES))
    of_rows = (expected * (np.log(expected) - np.log(softmax(other)))).sum(axis=1)
    close(divergence(tensor(other), found), of_rows.mean())


def test_the_branches_change_their_weights_with_the_epoch():
    found = [branch_weights(epoch, 3) for epoch in (1, 3, 6)]
    assert found == [(math.exp(-((1 - 1 / 3) ** 2)), 1.0), (1.0, 1.0), (1.0, math.exp(-(0.5**2)))]
    first = first_distributions(CLASSES, 0.7)
    np.testing.assert_allclose(first.sum(dim=1), 1, rtol=1e-6)
    assert first[1].tolist() == pytest.approx([0.1, 0.7, 0.1, 0.1])
