"""Networks for sequences: sizes as printed or counted, what each reads, and that trainings can be repeated."""

import numpy as np
import pytest
import torch
from support.recognisers import CLASSES, other_set, training_set, workspace
from torch import nn

from ferbench.data.faces import SIZE
from ferbench.data.landmarks import BROWS, COUNT, JAW, WITHOUT_CORNERS
from ferbench.errors import UsageError
from ferbench.methods.interface import SampleSet, Video
from ferbench.methods.recipes import resolve
from ferbench.methods.sequences import networks, recogniser
from ferbench.protocol import protocol as protocols
from ferbench.training.augment import ANGLES, DERIVED, derive, turned

QUICK = ("finetune.epochs=3", "finetune.batch=8", "network.dropout=0.2")


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def trained(name, tmp_path, *changes, **options):
    landmarks = name in ("dtgn", "dtagn", "phrnn", "phrnn-mscnn")
    method = resolve(name, "tiny", "synth-sequences", (*QUICK, *changes))
    one = method.family.recogniser(method, "fold", CLASSES)
    work = workspace(tmp_path, protocol=protocols.load("synth-sequences"), **options)
    return one, training_set(24, frames=6, landmarks=landmarks), other_set(12, frames=6, landmarks=landmarks), work


def test_networks_have_the_sizes_that_were_counted():
    assert parameters(networks.Dtan(12, 7, 0.0, size=64)) == 5_784_235
    assert parameters(networks.Dtan(3, 7, 0.0, size=64)) == 5_769_835
    assert parameters(networks.Dtgn(12, 49, 7, 0.0)) == 182_507
    assert parameters(networks.Mscnn(7)) == 53_207
    hierarchy = networks.Phrnn(5, 7)
    assert parameters(hierarchy) - parameters(hierarchy.top) == 552_120


def test_maps_of_the_still_network_have_the_sizes_of_its_figure():
    network, sizes = networks.Mscnn(7), []
    for layer in network.maps:
        if isinstance(layer, nn.LocalResponseNorm | nn.Conv2d):
            layer.register_forward_hook(
                lambda module, args, out: sizes.append((type(module).__name__, tuple(out.shape[1:])))
            )
    network(torch.rand(2, 48, 48))
    assert [shape for name, shape in sizes if name == "LocalResponseNorm"] == [(10, 28, 28), (20, 12, 12), (40, 4, 4)]
    assert sizes[-1] == ("Conv2d", (40, 2, 2))


def test_the_order_of_frames_matters_to_the_appearance_network():
    torch.manual_seed(0)
    network, x = networks.Dtan(3, 7, 0.0).eval(), torch.rand(2, 3, 48, 48)
    assert not torch.allclose(network(x)[0], network(x.flip(1))[0])


def test_neither_jaw_nor_order_of_levels_leaks_in_the_hierarchy():
    torch.manual_seed(0)
    network, x = networks.Phrnn(5, 7), torch.randn(2, 5, COUNT, 2, requires_grad=True)
    network(x)[0].sum().backward()
    assert x.grad[:, :, list(JAW)].abs().max() == 0
    assert (x.grad[:, :, 17:].abs().amax(dim=(0, 1, 3)) > 0).all()
    moved = x.detach().clone()
    moved[:, :, list(BROWS)] += 1
    before, after = network.levels(x.detach()), network.levels(moved)
    for name in ("eyes", "nose", "mouth"):
        assert torch.equal(before[0][name], after[0][name])
    assert not torch.equal(before[0]["brows"], after[0]["brows"])
    assert torch.equal(before[3]["lower"], after[3]["lower"])
    assert not torch.equal(before[3]["upper"], after[3]["upper"])


def test_reversed_time_and_swapped_directions_swap_the_last_states():
    torch.manual_seed(0)
    network = networks.Phrnn(5, 7)
    x = torch.randn(2, 5, network.whole.input_size)
    _, (state, _) = network.whole(x)
    other = nn.LSTM(network.whole.input_size, network.whole.hidden_size, batch_first=True, bidirectional=True)
    state_dict = network.whole.state_dict()
    other.load_state_dict(
        {
            name: state_dict[name.removesuffix("_reverse") if name.endswith("_reverse") else name + "_reverse"]
            for name in state_dict
        }
    )
    _, (turned, _) = other(x.flip(1))
    torch.testing.assert_close(turned, state.flip(0))


def test_a_part_s_score_is_at_the_place_of_the_greatest_response_less_its_deformation_cost():
    torch.manual_seed(0)
    network = networks.ActionPartCnn(6, 3, 4, deformed=True).double()
    costs = torch.rand(networks.PARTS, 3, 6, dtype=torch.float64) * torch.tensor([0.1, 0.1, 0.1, -0.1, -0.1, -0.1])
    network.cost.data = costs
    maps, scores = network.scores(torch.rand(2, 6, 48, 48, dtype=torch.float64))
    maps, wanted = maps.detach().double().numpy(), np.empty((2, networks.PARTS, 3))
    best = np.empty((2, networks.PARTS, 3, 3))  # displacement in z, y, x
    for sample, part, label in np.ndindex(wanted.shape):
        wanted[sample, part, label] = -np.inf
        for z, y, x in np.ndindex(maps.shape[3:]):
            across, down = networks.PLACES[part]
            dx, dy, dz = x - (6 * across - 0.5), y - (6 * down - 0.5), z - (2 - 1) / 2
            cost = costs[part, label].numpy() @ [dx, dy, dz, dx**2, dy**2, dz**2]
            if maps[sample, part, label, z, y, x] + cost > wanted[sample, part, label]:
                wanted[sample, part, label] = maps[sample, part, label, z, y, x] + cost
                best[sample, part, label] = dz, dy, dx
    np.testing.assert_allclose(scores.detach().numpy(), wanted, rtol=1e-5, atol=1e-5)
    assert (wanted[0] - wanted[1]).std() > 0.01  # a score depends on the sequence, and so does the place
    assert (best[0] != best[1]).any()
    scores.sum().backward()  # ∂score/∂d = φ of the place, summed over the two sequences
    dz, dy, dx = best.sum(axis=0)[..., 0], best.sum(axis=0)[..., 1], best.sum(axis=0)[..., 2]
    np.testing.assert_allclose(network.cost.grad.numpy()[..., :3], np.stack([dx, dy, dz], axis=-1), atol=1e-5)


def test_without_deformation_a_score_is_the_mean_of_its_map():
    torch.manual_seed(0)
    maps, scores = networks.ActionPartCnn(5, 3, 4, deformed=False).scores(torch.rand(2, 5, 48, 48))
    torch.testing.assert_close(scores, maps.mean(dim=(3, 4, 5)))


def test_zeroing_a_part_changes_its_own_scores_alone():
    torch.manual_seed(0)
    network, x = networks.ActionPartCnn(5, 3, 4, deformed=True), torch.rand(2, 5, 48, 48)
    with torch.no_grad():
        before = network(x)[1].unflatten(1, (networks.PARTS, 3))
        network.specific[0].weight.unflatten(0, (networks.PARTS, 3))[4] = 0
        network.specific[0].bias.unflatten(0, (networks.PARTS, 3))[4] = 0
        after = network(x)[1].unflatten(1, (networks.PARTS, 3))
    assert ((after - before).abs().amax(dim=(0, 2)) > 1e-6).nonzero().flatten().tolist() == [4]


@pytest.mark.parametrize("which", range(DERIVED))
def test_landmarks_turn_with_their_pictures(which):
    picture = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    picture[0, 29:32, 9:12] = 255  # around the point (10, 30)
    track = np.full((1, COUNT, 2), 20.0)
    point = 36  # the left corner of an eye; in the mirror image it is point 45
    track[0, point] = 10, 30
    drawn = derive(picture, torch.tensor([which]))[0, 0].double().numpy()
    weights = drawn / drawn.sum()
    rows, columns = np.mgrid[:SIZE, :SIZE]
    position = turned(track, which)[0, 45 if which >= len(ANGLES) else point]
    np.testing.assert_allclose(position, [(weights * columns).sum(), (weights * rows).sum()], atol=0.1)


def test_tracks_know_neither_place_nor_scale():
    samples = training_set(3, frames=5, landmarks=True)
    one = recogniser.tracks_of(samples.videos, 12, derived=1)
    assert one.shape == (3, 1, 12, COUNT, 2)
    moved = [
        type(video)(video.frames, video.landmarks * np.float32([2, 0.5]) + np.float32([5, -7]))
        for video in samples.videos
    ]
    torch.testing.assert_close(recogniser.tracks_of(moved, 12, derived=1), one, atol=1e-4, rtol=1e-4)
    assert len(recogniser.DTGN_POINTS) == len(WITHOUT_CORNERS) == 49


def test_tracks_are_standardised_by_the_training_set_alone(tmp_path):
    one, samples, test, work = trained("dtgn", tmp_path)
    one.fit(samples, work)
    network = one.parts["dtgn"]
    every = recogniser.tracks_of(samples.videos, 12, derived=DERIVED)[..., recogniser.DTGN_POINTS, :].flatten(0, 1)
    torch.testing.assert_close(network.mean, every.mean(dim=0))
    before = network.mean.clone()
    one.predict(test[0], work)
    assert torch.equal(network.mean, before)


def test_joint_training_changes_the_last_layers_alone(tmp_path):
    one, samples, _, work = trained("dtagn", tmp_path, "joint.epochs=1", "joint.batch=8")
    method = resolve("dtagn", "tiny", "synth-sequences", QUICK)
    separate = method.family.recogniser(method, "fold", CLASSES)
    separate.recipe = separate.recipe.model_copy(
        update={"fusion": separate.recipe.fusion.model_copy(update={"kind": "mean"})}
    )
    one.fit(samples, work)
    separate.fit(samples, workspace(tmp_path / "other", protocol=work.protocol))
    before, after = separate.state(), one.state()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {f"{part}/top.{kind}" for part in ("dtan", "dtgn") for kind in ("weight", "bias")}


def test_the_sum_s_loss_has_the_same_gradient_for_both_logits():
    torch.manual_seed(0)
    first, second = torch.randn(2, 4, 3, requires_grad=True).unbind(0)
    first.retain_grad(), second.retain_grad()
    nn.functional.cross_entropy(first + second, torch.tensor([0, 1, 2, 1])).backward()
    torch.testing.assert_close(first.grad, second.grad)


@pytest.mark.parametrize("name", ["dtan", "dtgn", "dtagn", "phrnn", "mscnn", "phrnn-mscnn", "3dcnn", "3dcnn-dap"])
def test_an_interrupted_training_ends_with_the_same_bytes_and_is_stored_whole(name, tmp_path):
    fewer = ("joint.epochs=2", "joint.batch=8", "network.filters=2")
    one, samples, test, work = trained(name, tmp_path / "whole", *fewer)
    one.fit(samples, work)
    probabilities = one.predict(test[0], work)
    assert probabilities.shape == (12, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)

    class Stop(Exception):
        pass

    def stopping(done, total, text):
        if done == 5:
            raise Stop

    other, samples, test, work = trained(name, tmp_path / "cut", *fewer, report=stopping)
    with pytest.raises(Stop):
        other.fit(samples, work)
    again, samples, test, work = trained(name, tmp_path / "cut", *fewer)
    again.fit(samples, work)
    for key, tensor in one.state().items():
        assert torch.equal(tensor, again.state()[key]), key
    loaded, *_ = trained(name, tmp_path / "load", *fewer)
    loaded.load(one.state())
    np.testing.assert_array_equal(loaded.predict(test[0], work), probabilities)


def test_the_still_network_learns_each_still_and_answers_with_their_mean_probability(tmp_path):
    one, samples, (test, _), work = trained("mscnn", tmp_path, "finetune.epochs=1")
    videos = [Video(test.videos[row].frames[:length]) for row, length in enumerate((6, 2, 1))]
    test = SampleSet(images=test.images[:3], videos=videos)
    stills, rows = recogniser.stills_of(test.videos, 3)
    assert rows.tolist() == [0, 0, 0, 1, 1, 2]
    expected = [*test.videos[0].frames[3:], *test.videos[1].frames, *test.videos[2].frames]
    assert torch.equal(stills, torch.from_numpy(np.stack(expected)[:, None]))
    reports = []
    work.report = lambda done, total, text: reports.append(total)
    one.fit(samples, work)
    assert reports[-1] == 3 * len(samples) // 8  # steps of one epoch of batches of 8 stills
    with torch.no_grad():
        logits = one.parts["mscnn"].double()(stills[:, 0].double() / 255 - 0.5)[0].numpy()
    one.parts["mscnn"].float()
    each = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wanted = [each[:3].mean(axis=0), each[3:5].mean(axis=0), each[5]]
    np.testing.assert_allclose(one.predict(test, work), wanted, rtol=1e-4)


def test_what_can_be_learned_is_learned(tmp_path):
    one, samples, (test, labels), work = trained("dtan", tmp_path, "finetune.epochs=15", "finetune.augment=none")
    one.fit(samples, work)
    assert (one.predict(test, work).argmax(axis=1) == labels).mean() > 0.8


def test_only_a_chosen_start_is_part_of_a_training_s_identity():
    protocol = protocols.load("synth-sequences")
    of = {name: resolve(name, "tiny", protocol.name) for name in ("dtagn", "3dcnn", "3dcnn-dap")}
    content = {name: method.family.identity("fold", method, protocol)["network"] for name, method in of.items()}
    assert "stills" not in content["dtagn"]
    assert "start" not in content["dtagn"]  # trainings of before there was a choice keep their keys
    assert content["3dcnn-dap"]["start"] == "centroids"
    assert content["3dcnn-dap"]["score"] == "maximum"  # and only this method has other keys than with the mean
    assert "score" not in content["3dcnn"]
    assert "score" not in content["dtagn"]


def test_of_two_networks_in_turn_no_epoch_can_be_chosen(tmp_path):
    one, samples, _, work = trained("phrnn-mscnn", tmp_path, keep_best=True)
    with pytest.raises(UsageError, match="an epoch cannot be chosen"):
        one.fit(samples, work)


def test_methods_say_what_they_need():
    for name, wanted in {
        "dtan": {"sequences"},
        "dtagn": {"sequences", "landmarks"},
        "mscnn": {"sequences"},
        "phrnn": {"sequences", "landmarks"},
        "3dcnn-dap": {"sequences"},
    }.items():
        method = resolve(name, "tiny", "synth-sequences")
        assert method.family.needs(method) == wanted
