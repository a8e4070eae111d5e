"""The losses of the convolutional networks beside their formulas in float64, and the rules of their state."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.cnn import SHAPES, fitted, little
from support.recognisers import training_set, workspace
from torch import nn

from ferbench.methods.cnn.losses import identity_loss, tuplet_loss
from ferbench.methods.cnn.networks import CenterNetwork, CnnNetwork, TrainingLabels
from ferbench.methods.cnn.recogniser import build
from ferbench.methods.interface import FOLD
from ferbench.methods.recipes import resolve
from ferbench.training.device import Device
from ferbench.training.feature_losses import center_loss, center_step, locality_loss, push_loss, push_step
from ferbench.training.loop import engine
from ferbench.training.networks import seeded
from ferbench.training.plan import Step

NONE = np.empty(0, dtype=np.int64)


def drawn(count: int = 12, size: int = 5, classes: int = 3, seed: int = 0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, size)), np.arange(count) % classes, rng.normal(size=(classes + 1, size))


def network(name: str, *changes: str, classes: int = 3) -> CnnNetwork:
    trunk = resolve(name, "tiny", "synth").recipe.network.trunk
    recipe = resolve(name, "tiny", "synth", (*SHAPES[trunk], *changes)).recipe
    return seeded(0, lambda: build(recipe, FOLD, classes))


# --- center loss ---


def test_center_loss_and_its_step_are_the_formulas():
    x, y, c = drawn()
    tensors = torch.tensor(x), torch.tensor(y), torch.tensor(c)
    assert center_loss(*tensors).item() == pytest.approx(
        sum(((a - c[j]) ** 2).sum() for a, j in zip(x, y, strict=True)) / 2 / 12
    )
    step = center_step(*tensors).numpy()
    for j in range(4):
        members = [a for a, label in zip(x, y, strict=True) if label == j]
        np.testing.assert_allclose(step[j], sum((c[j] - a for a in members), np.zeros(5)) / (1 + len(members)))
    assert (step[3] == 0).all()


def test_centers_move_after_the_optimizer_s_step_by_their_own_rule_and_absent_ones_stay():
    net = network("center-loss", classes=4)
    net.centers += torch.rand(4, 12)
    before = net.centers.clone()
    x, labels = torch.rand(6, 1, 48, 48), torch.tensor([0, 0, 0, 1, 1, 3])
    batch = Step(np.arange(6), np.zeros(6, dtype=np.int64), 1, NONE, NONE).on("cpu")
    stage = resolve("center-loss", "tiny", "synth").recipe.finetune
    features = net.outputs(x)["features"].detach()
    steps = engine(
        net, lambda b: net.loss(net.outputs(x), TrainingLabels(labels, labels), b), stage, Device(), net.after_step
    )
    steps.step(batch)
    for j in (0, 1, 3):
        mine = features[labels == j]
        delta = (before[j] - mine).sum(dim=0) / (1 + len(mine))
        torch.testing.assert_close(net.centers[j], before[j] - 0.5 * delta)
    assert torch.equal(net.centers[2], before[2])
    assert not any(net.centers is one for one in net.parameters())


@pytest.mark.parametrize("name", ["center-loss", "dlp-cnn", "il-cnn", "nm-softmax"])
def test_without_its_weight_a_loss_leaves_the_plain_network_bit_for_bit(name, tmp_path):
    """One seed starts all losses from the same weights, and no other number is drawn on the way to them."""
    plain = "base-dcnn" if name in ("center-loss", "dlp-cnn") else "small-cnn"
    start = network(plain).state_dict()
    for key, tensor in start.items():
        assert torch.equal(tensor, network(name).state_dict()[key]), key
    if name == "nm-softmax":  # its steps hold tuplets, so only the start is that of the plain network
        return
    want = fitted(little(plain, "finetune.epochs=2"), workspace(tmp_path / "plain")).state()
    without_weight = fitted(little(name, "finetune.epochs=2", "loss.weight=0"), workspace(tmp_path / "0")).state()
    other = fitted(little(name, "finetune.epochs=2", "loss.weight=0.5"), workspace(tmp_path / "1")).state()
    for key, tensor in want.items():
        assert torch.equal(tensor, without_weight[key]), key
    assert not torch.equal(want["embedding.0.weight"], other["embedding.0.weight"])


# --- island loss ---


def test_pairs_of_centers_sum_to_two_to_zero_and_to_four():
    one = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for other, total in (((0.0, 3.0), 2), ((-2.0, 0.0), 0), ((5.0, 0.0), 4)):
        centers = torch.stack([one, torch.tensor(other, dtype=torch.float64)])
        assert push_loss(centers, "ordered").item() == pytest.approx(total, abs=1e-12)
    centers = torch.randn(7, 5, dtype=torch.float64)
    ordered = push_loss(centers, "ordered").item()
    assert push_loss(centers, "unordered").item() == pytest.approx(ordered / 2)
    assert push_loss(centers, "mean").item() == pytest.approx(ordered / 42)


def test_the_paper_s_push_is_its_formula_and_a_twelfth_of_the_gradient_for_seven_classes():
    c = np.random.default_rng(0).normal(size=(7, 5))
    want = np.zeros_like(c)
    for j in range(7):
        for k in range(7):
            if k != j:
                nj, nk = np.linalg.norm(c[j]), np.linalg.norm(c[k])
                want[j] += (c[k] / (nk * nj) - (c[k] @ c[j]) * c[j] / (nk * nj**3)) / 6
    centers = torch.tensor(c, requires_grad=True)
    np.testing.assert_allclose(push_step(centers).detach().numpy(), want, atol=1e-14)
    gradient = torch.autograd.grad(push_loss(centers, "ordered"), centers)[0]
    np.testing.assert_allclose(gradient.numpy(), 12 * want, atol=1e-13)
    assert torch.isfinite(push_step(torch.zeros(3, 4))).all()


def test_the_push_drives_centers_apart_as_the_recipe_says(tmp_path):
    def moved(*changes: str) -> torch.Tensor:
        net = network("il-cnn", *changes)
        assert isinstance(net, CenterNetwork)
        net._last = torch.zeros(1, 12), torch.tensor([0])
        plain = network("il-cnn", "loss.push=0")
        plain._last = net._last
        batch = Step(NONE, NONE, 1, NONE, NONE).on("cpu")
        net.after_step(batch)
        plain.after_step(batch)
        return net.centers - plain.centers

    start = network("il-cnn").centers
    torch.testing.assert_close(moved(), -0.5 * 10 * push_step(start), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(moved("loss.step=autograd"), 4 * moved(), atol=1e-5, rtol=1e-4)  # 2 (3 - 1) for three
    after = start + moved()
    assert push_loss(after, "ordered") < push_loss(start, "ordered")


def test_without_its_push_island_loss_is_center_loss(tmp_path):
    changes = ("finetune.epochs=2", "loss.weight=0.1", "loss.start=zeros")
    island = fitted(little("il-cnn", *changes, "loss.push=0"), workspace(tmp_path / "island")).network
    changed = little("il-cnn")
    recipe = changed.recipe.model_validate(
        {
            **changed.recipe.model_dump(),
            "finetune": island_stage(changes),
            "loss": {"kind": "center", "weight": 0.1, "alpha": 0.5, "start": "zeros"},
        }
    )
    center = fitted(changed.model_copy(update={"recipe": recipe}), workspace(tmp_path / "center")).network
    for (key, one), other in zip(island.state_dict().items(), center.state_dict().values(), strict=True):
        assert torch.equal(one, other), key


def island_stage(changes: tuple[str, ...]):
    return little("il-cnn", *changes).recipe.finetune.model_dump()


# --- locality-preserving loss ---


def test_locality_loss_is_the_formula():
    x, y, _ = drawn(13, classes=4)
    y[12] = 9  # alone in its class
    for k in (1, 2, 3, 20):
        total = 0.0
        for i in range(13):
            others = sorted((np.linalg.norm(x[i] - x[j]), j) for j in range(13) if j != i and y[j] == y[i])[:k]
            if others:
                total += ((x[i] - np.mean([x[j] for _, j in others], axis=0)) ** 2).sum() / 2
        assert locality_loss(torch.tensor(x), torch.tensor(y), k).item() == pytest.approx(total / 13)


def test_with_all_neighbours_locality_is_the_distance_to_the_batch_s_mean():
    x = torch.randn(9, 4, dtype=torch.float64)
    want = (9 / 8) ** 2 * (x - x.mean(dim=0)).square().sum(dim=1).mean() / 2
    torch.testing.assert_close(locality_loss(x, torch.zeros(9, dtype=torch.int64), 8), want)


def test_neighbours_are_constants_and_a_lone_image_has_no_gradient():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    locality_loss(x, torch.tensor([0, 0, 0, 1]), 2).backward()
    mean = x[[1, 2]].mean(dim=0)
    torch.testing.assert_close(x.grad[0], (x[0] - mean).detach() / 4)
    assert (x.grad[3] == 0).all()


# --- IACNN ---


def test_contrastive_loss_is_the_formula():
    rng = np.random.default_rng(0)
    a, b, z = rng.normal(size=(8, 4)), rng.normal(size=(8, 4)), np.arange(8) % 2 == 0
    expected = 0.0
    for one, other, alike in zip(a, b, z, strict=True):
        distance = np.linalg.norm(one / np.linalg.norm(one) - other / np.linalg.norm(other))
        expected += (distance**2 if alike else max(0, 1.3 - distance) ** 2) / 8
    loss = identity_loss(torch.tensor(a), torch.tensor(b), torch.tensor(z), 1.3)
    assert loss.item() == pytest.approx(expected)
    same = torch.ones(1, 3, requires_grad=True)
    identity_loss(same, torch.ones(1, 3), torch.tensor([False]), 1.0).backward()
    assert torch.isfinite(same.grad).all()


def pairs():
    x, labels = torch.rand(8, 1, 48, 48), torch.tensor([0, 1, 2, 0, 0, 2, 1, 0])
    truth = TrainingLabels(labels, torch.tensor([0, 0, 1, 1, 0, 1, 2, 3]))
    return x, truth, Step(np.arange(8), np.zeros(8, dtype=np.int64), 1, np.arange(4), np.arange(4, 8))


def test_the_identity_loss_reaches_its_own_branch_and_the_trunk_but_not_the_expressions():
    net = network("iacnn")
    x, truth, step = pairs()
    net.loss(net.outputs(x), truth, step.on("cpu"))["identity"].backward()
    assert all(one.grad.abs().sum() > 0 for one in net.identity.parameters())
    assert sum(one.grad.abs().sum() for one in net.trunk.parameters()) > 0
    for part in (net.embedding, net.classifier, net.joint):
        assert all(one.grad is None for one in part.parameters())


def test_swapping_the_pair_leaves_the_loss_and_the_total_is_the_weighted_sum():
    changes = ("loss.softmax=0.5", "loss.expression=2", "loss.identity=3", "loss.joint=0.7")
    net = network("iacnn", *changes).eval()
    x, truth, step = pairs()
    outputs = net.outputs(x)
    terms = net.loss(outputs, truth, step.on("cpu"))
    swapped = net.loss(outputs, truth, replace(step, first=step.second, second=step.first).on("cpu"))
    torch.testing.assert_close(terms["total"], swapped["total"])
    weights = {"softmax": 0.5, "expression": 2, "identity": 3, "joint": 0.7}
    torch.testing.assert_close(terms["total"], sum(weight * terms[name] for name, weight in weights.items()))
    both = nn.functional.cross_entropy(outputs["expression"], truth.classes)
    torch.testing.assert_close(terms["softmax"], 2 * both)


def test_one_stream_is_tested_and_it_equals_either():
    net = network("iacnn").eval()
    x, *_ = pairs()
    torch.testing.assert_close(net(x), net.outputs(x)["logits"])
    torch.testing.assert_close(net(x[:4]), net(x)[:4])
    torch.testing.assert_close(net(x[4:]), net(x)[4:])


# --- (N+M) tuplets ---


def test_tuplet_loss_is_the_formula():
    x, _, _ = drawn(11, seed=2)
    labels = np.array([0, 0, 0, 1, 2, 1, 1, 0, 2, 2, 2])
    queries = np.array([0, 0, 0, 0, 0, 5, 5, 5, 8, 8, 8])  # the last one has no negatives
    gap, threshold, want = 0.5, 6.0, 0.0
    for query in (0, 5, 8):
        rows = np.flatnonzero(queries == query)
        mean = x[rows[labels[rows] == labels[query]]].mean(axis=0)
        near = [max(0, ((x[i] - mean) ** 2).sum() - threshold + gap / 2) for i in rows if labels[i] == labels[query]]
        far = [max(0, threshold + gap / 2 - ((x[i] - mean) ** 2).sum()) for i in rows if labels[i] != labels[query]]
        want += sum(sum(terms) / max(1, sum(term > 0 for term in terms)) for terms in (near, far)) / 3
    loss = tuplet_loss(torch.tensor(x), torch.tensor(labels), torch.tensor(queries), torch.tensor(threshold), gap)
    assert loss.item() == pytest.approx(want)


def test_equal_positives_and_far_negatives_give_no_loss_and_no_gradient():
    x = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], requires_grad=True)
    threshold = torch.tensor(1.0, requires_grad=True)
    loss = tuplet_loss(x, torch.tensor([0, 0, 0, 1, 2]), torch.zeros(5, dtype=torch.int64), threshold, 0.5)
    loss.backward()
    assert loss.item() == 0
    assert (x.grad == 0).all()
    assert threshold.grad == 0


def test_the_threshold_rises_where_positives_violate_and_falls_where_negatives_do():
    def pull(points: list[list[float]]) -> float:
        threshold = torch.tensor(1.0, requires_grad=True)
        tuplet_loss(
            torch.tensor(points), torch.tensor([0, 0, 1]), torch.zeros(3, dtype=torch.int64), threshold, 0.5
        ).backward()
        return -threshold.grad.item()  # the direction of a step of descent

    assert pull([[-1.0, 0], [1, 0], [0, 5]]) == 1  # positives far from their mean, the negative far as well
    assert pull([[0.1, 0], [0, 0], [0, 0.2]]) == -1  # positives at their mean, the negative near it


def test_the_threshold_learns_at_its_own_rate():
    samples = training_set()
    for rate in (1.0, 0.1):
        net = network("nm-softmax", f"loss.rate={rate}", "loss.threshold=1e-9", "loss.gap=0.0")
        step = net.plan(samples, resolve("nm-softmax", "tiny", "synth").recipe.finetune, 0)(0)[0]
        x = torch.rand(len(step.images), 1, 48, 48)
        net.loss(net.outputs(x), TrainingLabels.of(samples, "cpu"), step.on("cpu"))["total"].backward()
        assert net.threshold.grad.item() == pytest.approx(-rate)


def test_only_tuplets_make_steps_that_no_captured_graph_can_replay():
    assert [network(name).equal_steps for name in ("center-loss", "il-cnn", "dlp-cnn", "iacnn", "nm-softmax")] == [
        True,
        True,
        True,
        True,
        False,
    ]
