"""The recipe beyond the paper: each part against its formula, and off by itself."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.datasets import make_faces
from support.networks import CPU, SMALL
from support.recognisers import CLASSES, training_set, workspace

from ferbench.errors import UsageError
from ferbench.execution.options import Compute, TrainOptions
from ferbench.execution.training import prepare_training
from ferbench.methods.interface import SampleSet
from ferbench.methods.recipes import resolve
from ferbench.methods.wslgan import stages
from ferbench.methods.wslgan.network import WSLGAN
from ferbench.methods.wslgan.recipe import LossWeights
from ferbench.methods.wslgan.stages import total_loss
from ferbench.protocol import protocol as protocols
from ferbench.training.augment import derive, erase, jitter
from ferbench.training.loop import fit, learning_rate
from ferbench.training.plan import paired_epoch, single_epoch


def test_it_changes_fine_tuning_alone_and_says_so():
    paper, modern = resolve("wslgan", "tiny", "ckplus"), resolve("wslgan", "tiny", "ckplus", recipe="modern")
    assert modern.title == "WS-LGAN, modern recipe"
    assert modern.published == ""
    protocol = protocols.load("ckplus")
    for kind in ("attention", "pretrain"):
        assert paper.family.identity(kind, paper, protocol) == modern.family.identity(kind, modern, protocol)
    off, on = (method.family.identity("fold", method, protocol)["stage"] for method in (paper, modern))
    assert {name: on[name] for name in on.keys() - off.keys()} == {"smoothing": 0.1, "ema": 2.0, "flip": True}
    with pytest.raises(UsageError, match="unknown recipe 'postmodern'; did you mean modern?"):
        resolve("wslgan", "tiny", "ckplus", recipe="postmodern")


def test_the_rate_falls_along_a_cosine():
    stage = resolve("gfnet", "tiny", "ckplus", ("finetune.epochs=10", "finetune.anneal=cosine")).recipe.finetune
    for epoch in range(10):
        assert learning_rate(stage, epoch) == pytest.approx(0.01 * 0.5 * (1 + math.cos(math.pi * epoch / 10)))


def test_smoothed_labels_share_a_tenth_with_all_classes():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 7, dtype=torch.float64), torch.randint(0, 7, (2, 5))
    terms = total_loss((logits[0], logits[1]), (labels[0], labels[1]), ({}, {}), LossWeights(), 0.1)
    for stream, name in enumerate(("stream1", "stream2")):
        log = logits[stream].log_softmax(1)
        target = torch.full((5, 7), 0.1 / 7, dtype=torch.float64)
        target[torch.arange(5), labels[stream]] += 0.9
        assert terms[name].item() == pytest.approx(-(target * log).sum(1).mean().item())


def test_an_erased_rectangle_shows_the_image_s_mean_and_nothing_else_changes():
    x = torch.rand(3, 1, 48, 48, dtype=torch.float64)
    boxes = torch.tensor([[0, 0, 48, 10], [5, 7, 9, 40], [20, 20, 20, 20]])
    found = erase(x, boxes).numpy()
    for image, (top, left, bottom, right), after in zip(x.numpy(), boxes.tolist(), found, strict=True):
        wanted = image.copy()
        wanted[0, top:bottom, left:right] = image.mean()
        np.testing.assert_allclose(after, wanted, rtol=1e-12)


def drawn(name, **change):
    """What an epoch's plan draws under a name for all its rows, once it is seen that the change moves no other draw."""
    labels = np.zeros(4000, dtype=np.int64)
    plan, again, plain = (paired_epoch(labels, "sample", 100, 0, 3, "images", **more) for more in (change, change, {}))
    for one, same, other in zip(plan, again, plain, strict=True):
        assert (one.images == other.images).all()
        assert (one.derived == other.derived).all()
        assert getattr(other, name).size == 0
        assert (getattr(one, name) == getattr(same, name)).all()
    return np.concatenate([getattr(step, name) for step in plan])


def test_rectangles_are_of_the_sizes_that_were_published_and_change_no_other_draw():
    boxes = drawn("boxes", erase=0.5)
    height, width = (boxes[:, 2:] - boxes[:, :2]).T
    on = height * width > 0
    assert 0.45 < on.mean() < 0.55
    assert boxes.min() >= 0
    assert boxes.max() <= 48
    # Zhong et al. 2020, Algorithm 1: area of s_l = 0.02 to s_h = 0.33 of the image, sides in a ratio of 0.3 to 1 / 0.3;
    # whole pixels move either a little.
    area, ratio = height[on] * width[on] / 48**2, height[on] / width[on]
    assert (area.min(), area.max()) == (pytest.approx(0.02, abs=0.01), pytest.approx(0.33, abs=0.04))
    assert 0.17 < np.mean(area) < 0.18
    assert (ratio.min(), ratio.max()) == (pytest.approx(0.3, rel=0.3), pytest.approx(1 / 0.3, rel=0.3))


def test_a_step_sees_what_is_left_of_an_image_and_the_maps_of_the_whole():
    network = WSLGAN(SMALL, 3)
    labels, pixels, maps = torch.arange(8) % 3, torch.rand(8, 1, 48, 48), torch.rand(8, 2, 6, 6)
    (step,) = paired_epoch(labels.numpy(), "none", 8, 0, 0, "images", erase=1.0)
    batch, seen = step.on("cpu"), []
    network.stream = lambda x, m: seen.append((x, m)) or (torch.zeros(8, 3), {})
    stages.pair_loss(
        network.stream, labels, lambda images, _: (pixels[images], maps[images]), batch, LossWeights(), CPU
    )
    ((x, attention),) = seen
    assert torch.equal(x, erase(pixels[batch.images], batch.boxes))
    assert not torch.equal(x, pixels[batch.images])
    assert torch.equal(attention, maps[batch.images])


def shown(image, side, right, down):
    """What jitter's formula shows of a float64 picture [H,W]: bilinear, the nearest pixel beyond the border."""
    size, found = len(image), np.empty_like(image)
    for row in range(size):
        for column in range(size):
            # Places run from -1/2 to 1/2 over a side; a pixel's is that of its centre.
            y, x = (((place + 0.5) / size - 0.5) * side + move for place, move in ((row, down), (column, right)))
            y, x = (min(max((place + 0.5) * size - 0.5, 0), size - 1) for place in (y, x))
            top, left = int(y), int(x)
            bottom, after = min(top + 1, size - 1), min(left + 1, size - 1)
            upper = image[top, left] * (1 - x + left) + image[top, after] * (x - left)
            lower = image[bottom, left] * (1 - x + left) + image[bottom, after] * (x - left)
            found[row, column] = upper * (1 - y + top) + lower * (y - top)
    return found


def test_a_moved_image_and_its_maps_are_read_at_the_same_places():
    torch.manual_seed(0)
    x, maps = torch.rand(3, 1, 48, 48), torch.rand(3, 2, 12, 12)
    moves = [[1, 0, 0], [0.9, 0.07, -0.03], [1.1, -0.1, 0.1]]
    images, attention = jitter(x, maps, torch.tensor(moves), "edge")
    for number, move in enumerate(moves):
        np.testing.assert_allclose(images[number, 0], shown(x[number, 0].double().numpy(), *move), atol=1e-5)
        for part in range(2):
            wanted = shown(maps[number, part].double().numpy(), *move)
            np.testing.assert_allclose(attention[number, part], wanted, atol=1e-5)
    black, none = jitter(x, None, torch.tensor(moves), "zero")
    assert none is None
    assert float(black[2, 0, 0, 0]) == 0
    assert torch.equal(black[1, :, 10:-10, 10:-10], images[1, :, 10:-10, 10:-10])


def test_images_move_as_far_as_is_said_and_no_other_draw_changes():
    moves = drawn("moves", jitter=0.1)
    assert moves.dtype == np.float32
    for column, centre in zip(moves.T, (1, 0, 0), strict=True):
        assert (column.min(), column.max()) == (
            pytest.approx(centre - 0.1, abs=0.001),
            pytest.approx(centre + 0.1, abs=0.001),
        )
        assert column.mean() == pytest.approx(centre, abs=0.005)


def test_a_step_sees_the_image_and_the_maps_moved_and_erases_after_that():
    network = WSLGAN(SMALL, 3)
    labels, pixels, maps = torch.arange(8) % 3, torch.rand(8, 1, 48, 48), torch.rand(8, 2, 6, 6)
    (step,) = paired_epoch(labels.numpy(), "none", 8, 0, 0, "images", erase=1.0, jitter=0.1)
    batch, seen = step.on("cpu"), []
    network.stream = lambda x, m: seen.append((x, m)) or (torch.zeros(8, 3), {})
    stages.pair_loss(
        network.stream, labels, lambda images, _: (pixels[images], maps[images]), batch, LossWeights(), CPU
    )
    ((x, attention),) = seen
    images, moved = jitter(pixels[batch.images], maps[batch.images], batch.moves, "edge")
    assert torch.equal(x, erase(images, batch.boxes))
    assert torch.equal(attention, moved)
    assert not torch.equal(attention, maps[batch.images])


def test_averaged_weights_are_the_moving_average_and_survive_an_interruption(tmp_path):
    sets = ("finetune.epochs=3", "finetune.ema=1.5", "finetune.drops=[]")
    stage = resolve("gfnet", "tiny", "ckplus", sets).recipe.finetune

    def train(layer, saved, epochs, seen=None):
        def loss(batch):
            if seen is not None:
                seen.append(layer.weight.detach().clone())
            return {"total": (layer(torch.ones(1, 2)) - batch.images.float().mean()).square().sum()}

        fit(
            layer,
            loss,
            lambda e: single_epoch(6, "none", 2, 0, e),
            stage.model_copy(update={"epochs": epochs}),
            CPU,
            saved,
            lambda *a: None,
        )

    def fresh():
        torch.manual_seed(3)
        return torch.nn.Linear(2, 1)

    seen: list[torch.Tensor] = []
    whole = fresh()
    train(whole, tmp_path / "a", 3, seen)
    raw = fresh()  # the same steps without the average, to know the last weights
    train_raw = stage.model_copy(update={"ema": 0.0})
    fit(
        raw,
        lambda b: {"total": (raw(torch.ones(1, 2)) - b.images.float().mean()).square().sum()},
        lambda e: single_epoch(6, "none", 2, 0, e),
        train_raw,
        CPU,
        tmp_path / "c",
        lambda *a: None,
    )
    after = [*seen[1:], raw.weight.detach()]  # the weights after each step
    assert len(after) == 9
    average = torch.stack(after[:4]).mean(0)  # of as many steps as there are, until those of 1.5 epochs are more
    for weights in after[4:]:
        average = (1 - 1 / 4.5) * average + weights / 4.5
    torch.testing.assert_close(whole.weight.detach(), average)
    resumed = fresh()
    train(resumed, tmp_path / "b", 1)
    resumed = fresh()
    train(resumed, tmp_path / "b", 3)
    assert torch.equal(resumed.weight, whole.weight)


def test_it_is_refused_where_nothing_is_fine_tuned():
    options = TrainOptions("wslgan", "fer2013", preset="tiny", recipe="modern", compute=Compute(device="cpu"))
    with pytest.raises(UsageError, match="modern changes fine-tuning alone, and fer2013 has none"):
        prepare_training([options])


@pytest.mark.parametrize(
    ("rotate", "flip", "numbers"),
    [(False, False, [0]), (False, True, [0, 7]), (True, False, [*range(7)]), (True, True, [*range(14)])],
)
def test_every_view_of_an_image_counts_alike(tmp_path, rotate, flip, numbers):
    faces = make_faces([{"label": "anger"}, {"label": "fear"}, {"label": "fear"}])
    torch.manual_seed(1)
    network = WSLGAN(replace(SMALL, features="global"), 2)
    images = torch.from_numpy(np.array(faces.images))
    told = (f"finetune.flip={str(flip).lower()}", f"finetune.rotate={str(rotate).lower()}")
    method = resolve("gfnet", "tiny", "ckplus", told)
    recogniser = method.family.recogniser(method, "fold", ("anger", "fear"))
    recogniser.network = network
    found = recogniser.predict(SampleSet(images=images.numpy()), workspace(tmp_path, protocol=protocols.load("ckplus")))
    each = [
        stages.predict(network, derive(images, torch.tensor([number] * 3)).mul(255).round().to(torch.uint8)[:, 0], CPU)
        for number in numbers
    ]
    np.testing.assert_allclose(found, torch.stack(each).double().mean(dim=0), rtol=1e-6)
    assert all((one - each[0]).abs().max() > 1e-4 for one in each[1:])


def test_a_validation_sees_the_mirror_image_as_a_test_does(tmp_path, monkeypatch):
    """Else a choice by validation, of an epoch or in a trial, would be of something that is never tested."""
    seen = []
    told = stages.predict_views

    def predicted(network, views, *rest):
        seen.append([images.clone() for images, _ in views])
        return told(network, views, *rest)

    monkeypatch.setattr(stages, "predict_views", predicted)
    train, held = training_set(12), training_set(6, seed=1)
    fields = ("finetune.flip=true", "finetune.epochs=1", "architecture.growth=4", "architecture.reduction=2")
    method = resolve("gfnet", "tiny", "synth", fields)
    recogniser = method.family.recogniser(method, "fold", CLASSES)
    work = workspace(tmp_path, protocol=protocols.load("synth"), validation=held)
    history = recogniser.fit(train, work)
    images = torch.from_numpy(held.images)
    assert [[torch.equal(*pair) for pair in zip(views, (images, images.flip(2)), strict=True)] for views in seen] == [
        [True, True]
    ]
    probabilities = recogniser.predict(SampleSet(images=held.images), work)
    assert history[-1]["validation_accuracy"] == (probabilities.argmax(axis=1) == held.labels).mean()
