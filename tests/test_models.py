"""Each equation against a few lines of float64, and the shapes that the paper states."""

import numpy as np
import pytest
import torch
from support.networks import statistics_as_after_training
from torch import nn

from ferbench.methods.wslgan.densenet import DenseLayer, DenseNet, Transition
from ferbench.methods.wslgan.deployed import Deployed, FoldedLayer, FoldedTransition, folded
from ferbench.methods.wslgan.network import (
    WSLGAN,
    AttentionMapGenerator,
    ConcatFusion,
    PartClassifier,
    SelectiveFeatureUnit,
    SumFusion,
    bilinear_attention_pooling,
    unit_range,
)
from ferbench.methods.wslgan.recipe import Architecture, LossWeights
from ferbench.methods.wslgan.stages import contrastive_loss, total_loss
from ferbench.training.networks import Normalise

TINY = Architecture(growth=12, stem_stride=2)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("layers", "growth", "channels"), [((6, 6, 6), 32, 352), ((6, 6, 6), 12, 132), ((6, 12, 24), 32, 1024)]
)
def test_backbone_has_the_channels_of_densenet_bc(layers, growth, channels):
    assert DenseNet(layers, growth).channels == channels


@pytest.mark.parametrize(("stride", "size"), [(1, 12), (2, 6)])
def test_backbone_halves_twice_after_the_stem(stride, size):
    net = DenseNet((2, 2, 2), 4, stride).eval()
    assert net(torch.rand(2, 1, 48, 48)).shape == (2, net.channels, size, size)


def test_attention_is_the_class_activation_map_of_the_positive_class():
    part = PartClassifier((1, 1, 1), 4, 2).double().eval()
    x = torch.rand(3, 1, 48, 48, dtype=torch.float64)
    features, weight = part.features(x).detach().numpy(), part.output.weight.detach().numpy()
    for image, found in zip(features, part.attention(x, "positive").detach().numpy(), strict=True):
        cam = sum(weight[1, c] * image[c] for c in range(len(image)))
        np.testing.assert_allclose(found, (cam - cam.min()) / (cam.max() - cam.min()), rtol=1e-12)


def test_predicted_class_maps_follow_the_prediction():
    part = PartClassifier((1, 1, 1), 4, 2).double().eval()
    x = torch.rand(4, 1, 48, 48, dtype=torch.float64)
    with torch.no_grad():
        part.output.bias.copy_(torch.tensor([1e6, 0.0]))  # "absent" always wins
        absent = unit_range(torch.einsum("c,bchw->bhw", part.output.weight[0], part.features(x)))
        torch.testing.assert_close(part.attention(x, "predicted"), absent)
        assert not torch.allclose(part.attention(x, "positive"), absent)


def test_maps_of_either_class_are_the_size_of_what_the_classes_differ_by():
    part = PartClassifier((1, 1, 1), 4, 2).double().eval()
    x = torch.rand(3, 1, 48, 48, dtype=torch.float64)
    features, weight = part.features(x).detach().numpy(), part.output.weight.detach().numpy()
    found = part.attention(x).detach().numpy()
    for image, one in zip(features, found, strict=True):
        size = abs(sum((weight[1, c] - weight[0, c]) * image[c] for c in range(len(image))))
        np.testing.assert_allclose(one, (size - size.min()) / (size.max() - size.min()), rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        part.output.weight.copy_(part.output.weight.flip(0))
    np.testing.assert_allclose(part.attention(x).detach().numpy(), found, rtol=1e-9, atol=1e-12)


def test_maps_lie_between_0_and_1_and_a_flat_map_is_0():
    maps = unit_range(torch.stack([torch.randn(6, 6) * 100, torch.full((6, 6), 3.0)]))
    assert (maps[0].min(), maps[0].max()) == (0, 1)
    assert torch.equal(maps[1], torch.zeros(6, 6))


def test_bilinear_attention_pooling_multiplies_each_channel():
    features, attention = torch.randn(2, 5, 4, 3).double(), torch.rand(2, 4, 3).double()
    expected = np.empty((2, 5, 4, 3))
    for b in range(2):
        for i in range(5):
            expected[b, i] = attention[b].numpy() * features[b, i].numpy()  # Eq. 1, Eq. 2
    np.testing.assert_array_equal(bilinear_attention_pooling(features, attention).numpy(), expected)


def test_selective_feature_unit_is_equations_5_to_9():
    unit = SelectiveFeatureUnit(32, 3, 16).double().eval()
    e, m, g = (torch.randn(2, 32, 4, 4).double() for _ in range(3))
    found = unit([e, m, g]).detach().numpy()
    fc, norm = unit.squeeze[0], unit.squeeze[1]
    assert fc.out_features == 2  # d = C / 16
    norm.running_mean.fill_(0.1)
    norm.running_var.fill_(0.5)
    found = unit([e, m, g]).detach().numpy()
    big = unit.select.detach().numpy()
    for b in range(2):
        branches = [part[b].numpy() for part in (e, m, g)]
        s = sum(branches).mean(axis=(1, 2))
        z = fc.weight.detach().numpy() @ s + fc.bias.detach().numpy()
        z = np.maximum((z - 0.1) / np.sqrt(0.5 + norm.eps), 0)
        for c in range(32):
            a = np.exp([big[k, c] @ z for k in range(3)])
            weights = a / a.sum()  # Eq. 5-7, and Eq. 9
            v = sum(weights[k] * branches[k][c] for k in range(3))  # Eq. 8
            np.testing.assert_allclose(found[b, c], v, rtol=1e-10)


def test_selective_weights_sum_to_1_and_depend_on_the_image():
    unit = SelectiveFeatureUnit(32).eval()
    branches = [torch.randn(4, 32, 3, 3) for _ in range(3)]
    weights = unit.weights(branches)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4, 32))
    assert (weights[0] - weights[1]).abs().max() > 1e-3


def test_sum_and_concat_fusion():
    branches = [torch.randn(2, 3, 4, 4) for _ in range(3)]
    torch.testing.assert_close(SumFusion(3)(branches), branches[0] + branches[1] + branches[2])
    assert torch.equal(ConcatFusion(3)(branches)[:, 3:6], branches[1])
    assert ConcatFusion(3).channels == 9


def test_contrastive_loss_is_equation_3():
    a, b = torch.randn(6, 8).double() * 3, torch.randn(6, 8).double() * 3
    same = torch.tensor([1, 0, 1, 0, 0, 1])
    expected = []
    for x, y, theta in zip(a.numpy(), b.numpy(), same, strict=True):
        d = np.sqrt(((x - y) ** 2).sum())
        expected.append(0.5 * d**2 if theta else 0.5 * max(0.0, 10 - d) ** 2)
    np.testing.assert_allclose(contrastive_loss(a, b, same, 10.0).item(), np.mean(expected), rtol=1e-10)


def test_contrastive_loss_stays_finite_where_vectors_are_equal():
    a = torch.zeros(3, 4, requires_grad=True)
    contrastive_loss(a, torch.zeros(3, 4), torch.zeros(3), 10.0).backward()
    assert torch.isfinite(a.grad).all()


def test_pairs_beyond_the_margin_cost_nothing():
    far = torch.zeros(1, 2), torch.tensor([[30.0, 0.0]])
    assert contrastive_loss(*far, torch.tensor([0]), 10.0) == 0
    assert contrastive_loss(*far, torch.tensor([1]), 10.0) == 450


def test_total_loss_is_equation_10_with_every_weight():
    names = ("eyes", "mouth", "global")
    labels = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 2, 2, 0])
    logits = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    vectors = tuple({name: torch.randn(4, 5).double() for name in names} for _ in range(2))
    weights = LossWeights(eyes=0.5, mouth=0.7, whole=5.0, classification=1.5, contrastive=0.4)
    terms = total_loss(logits, labels, vectors, weights)
    same = labels[0] == labels[1]
    expected = 0.0
    for name, factor in zip(names, (0.5, 0.7, 5.0), strict=True):
        expected += 0.4 * factor * contrastive_loss(vectors[0][name], vectors[1][name], same, 10.0).item()
    for scores, truth in zip(logits, labels, strict=True):
        p = np.exp(scores.numpy()) / np.exp(scores.numpy()).sum(axis=1, keepdims=True)
        expected += 1.5 * -np.log(p[np.arange(4), truth]).mean()
    np.testing.assert_allclose(terms["total"].item(), expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["eyes", "mouth", "global"])
def test_every_contrastive_loss_reaches_the_feature_extractor(name):
    """Deleting any one of the three losses from the network or from Eq. 10 fails here."""
    net = WSLGAN(TINY, 7)
    x, maps = torch.rand(4, 1, 48, 48), torch.rand(4, 2, 6, 6)
    logits, vectors = net.stream(x, maps)
    labels = torch.tensor([0, 1, 2, 3])
    zero = {"eyes": 0.0, "mouth": 0.0, "whole": 0.0, "classification": 1e-12}
    only = LossWeights(**{**zero, "whole" if name == "global" else name: 1.0})
    shuffled = {key: value.roll(1, 0) for key, value in vectors.items()}
    total_loss((logits, logits), (labels, labels.roll(1, 0)), (vectors, shuffled), only)["total"].backward()
    assert net.auxiliary[name].weight.grad.abs().max() > 1e-3
    assert net.extractor.body[0].weight.grad.abs().max() > 1e-3


def test_attention_decides_where_a_part_is_looked_at():
    net = WSLGAN(TINY, 7).eval()
    x, maps = torch.rand(2, 1, 48, 48), torch.zeros(2, 2, 6, 6)
    maps[:, 0, 1] = 1
    branches = net.branches(x, maps)
    assert branches["eyes"][:, :, 1].abs().sum() > 0
    assert branches["eyes"][:, :, 2:].abs().sum() == 0
    assert branches["mouth"].abs().sum() == 0
    assert branches["global"][:, :, 2:].abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({}, ["eyes", "mouth", "global"]),
        ({"features": "local"}, ["eyes", "mouth"]),
        ({"features": "global"}, ["global"]),
        ({"fusion": "sum"}, ["eyes", "mouth", "global"]),
        ({"fusion": "concat"}, ["eyes", "mouth", "global"]),
        ({"contrastive": False}, []),
        ({"classifier_input": "flatten"}, ["eyes", "mouth", "global"]),
    ],
)
def test_ablations_are_arguments(change, names):
    net = WSLGAN(Architecture(growth=4, stem_stride=2, reduction=4, **change), 6)
    logits, vectors = net.stream(torch.rand(2, 1, 48, 48), torch.rand(2, 2, 6, 6))
    assert logits.shape == (2, 6)
    assert list(vectors) == names
    assert all(vector.shape == (2, 128) for vector in vectors.values())


def test_one_stream_without_auxiliary_layers_at_test():
    net = WSLGAN(TINY, 7).eval()
    x, maps = torch.rand(3, 1, 48, 48), torch.rand(3, 2, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(net(x, maps), net.stream(x, maps)[0])


def test_frozen_generator_gives_an_image_the_same_map_in_any_company():
    amg = AttentionMapGenerator(TINY).freeze()
    x = torch.rand(5, 1, 48, 48)
    torch.testing.assert_close(amg(x)[:2], amg(x[:2]), atol=1e-5, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in amg.parameters())


def test_normalise_takes_the_moments_of_the_training_images():
    images = torch.randint(0, 256, (10, 48, 48), dtype=torch.uint8)
    layer = Normalise()
    layer.fit(images, "train")
    values = images.double().numpy() / 255
    assert layer.mean.item() == pytest.approx(values.mean(), rel=1e-6)
    assert layer.deviation.item() == pytest.approx(values.std(), rel=1e-6)
    layer.fit(images, "image")
    each = layer(images.unsqueeze(1).float() / 255)
    torch.testing.assert_close(each.mean(dim=(1, 2, 3)), torch.zeros(10), atol=1e-5, rtol=0)
    torch.testing.assert_close(each.std(dim=(1, 2, 3), correction=0), torch.ones(10), atol=1e-5, rtol=0)
    layer.fit(images, "half")
    torch.testing.assert_close(layer(torch.ones(1, 1, 2, 2)), torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize(("kind", "made"), [(DenseLayer(10, 4), FoldedLayer), (Transition(10), FoldedTransition)])
def test_a_folded_layer_is_the_layer_in_fewer_operations(kind, made):
    layer = kind.double().eval()
    statistics_as_after_training(layer, 3)
    x = torch.randn(5, 10, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        torch.testing.assert_close(made(layer)(x), layer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_folded_network_gives_the_same_logits_and_maps(seed):
    torch.manual_seed(seed)
    small = Architecture(growth=4, stem_stride=2, extractor_layers=(2, 1, 1), generator_layers=(1, 2, 1), reduction=4)
    network, amg = WSLGAN(small, 7), AttentionMapGenerator(small)
    for part in (network, amg):
        statistics_as_after_training(part, seed)
    module = Deployed(network, amg).double()
    images = torch.randint(0, 256, (4, 1, 48, 48), dtype=torch.uint8)
    fast = folded(module)
    with torch.no_grad():
        for found, wanted in zip(fast(images), module(images), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    left = [m for m in fast.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(left) == 3  # the last one of each backbone, which no 1×1 convolution follows
