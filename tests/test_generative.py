"""Methods that generate neutral faces: who learns from what, and that trainings can be repeated."""

import numpy as np
import pytest
import torch
from support.recognisers import CLASSES, other_set, training_set, workspace

from ferbench.errors import UsageError
from ferbench.methods.generative import GenerativeLosses, GenerativeNetworkSettings
from ferbench.methods.generative.recogniser import (
    AdversarialPair,
    Discriminator,
    ExpressionClassifiers,
    NeutralFaceGenerator,
    distances,
)
from ferbench.methods.recipes import resolve
from ferbench.protocol import protocol as protocols
from ferbench.training.device import Device

QUICK = (
    "network.widths=[4,4,8,8]",
    "network.width=8",
    "network.embedding=8",
    "generator.epochs=2",
    "generator.batch=12",
    "finetune.epochs=2",
    "finetune.batch=12",
)
WIDTHS = (8, 8, 16, 16)


def trained(name, tmp_path, *changes, **options):
    method = resolve(name, "tiny", "synth-sequences", (*QUICK, *changes))
    return method.family.recogniser(method, "fold", CLASSES), workspace(
        tmp_path, protocol=protocols.load("synth-sequences"), **options
    )


def faces(count: int = 8) -> torch.Tensor:
    torch.manual_seed(0)
    coarse = torch.rand(count, 1, 6, 6) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (48, 48), mode="bilinear", align_corners=False)


def test_the_generator_memorises_eight_pairs():
    x, y = faces(), faces().flip(0) * 0.8
    torch.manual_seed(1)
    generator = NeutralFaceGenerator((16, 32, 64, 64))
    optimizer = torch.optim.Adam(generator.parameters(), 0.005)
    for _ in range(400):
        loss = (generator(x) - y).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.018:
            break
    assert loss.item() < 0.02


def test_the_generator_s_layers_have_the_sizes_that_are_classified():
    sizes = [tuple(maps.shape[1:]) for maps in NeutralFaceGenerator(WIDTHS).layers(faces(2))]
    assert sizes == [(8, 24, 24), (8, 12, 12), (16, 6, 6), (16, 3, 3), (16, 6, 6), (8, 12, 12), (8, 24, 24)]
    assert NeutralFaceGenerator(WIDTHS)(faces(2)).shape == (2, 1, 48, 48)


def test_each_of_both_gets_its_own_gradient_alone():
    torch.manual_seed(0)
    pair, x, y = AdversarialPair(NeutralFaceGenerator(WIDTHS), Discriminator(4)), faces(4), faces(4).flip(0)

    def gradients(*names):
        pair.zero_grad(set_to_none=True)
        terms = pair.loss(x, y, GenerativeLosses())
        sum(terms[name] for name in names).backward()
        return [any(p.grad is not None for p in part.parameters()) for part in (pair.generator, pair.discriminator)]

    assert gradients("reconstruction", "adversary") == [True, False]
    assert gradients("discriminator") == [False, True]
    assert "adversary" not in pair.loss(x, y, GenerativeLosses(adversary=0.0))


def test_losses_of_the_pair_are_their_formulas():
    torch.manual_seed(0)
    pair, x, y = (
        AdversarialPair(NeutralFaceGenerator(WIDTHS), Discriminator(4)).double().eval(),
        faces(3).double(),
        faces(3).double().flip(0),
    )
    terms = pair.loss(x, y, GenerativeLosses(reconstruction=7.0, adversary=2.0))
    with torch.no_grad():
        generated = pair.generator(x)
        real, fake = pair.discriminator(x, y).numpy(), pair.discriminator(x, generated).numpy()
    softplus = lambda logits: np.log1p(np.exp(-logits)).mean()  # noqa: E731
    assert terms["reconstruction"].item() == pytest.approx(7 * np.abs(y.numpy() - generated.numpy()).mean(), rel=1e-6)
    assert terms["adversary"].item() == pytest.approx(2 * softplus(fake), rel=1e-5)
    assert terms["discriminator"].item() == pytest.approx((softplus(real) + softplus(-fake)) / 2, rel=1e-5)
    assert terms["total"].item() == pytest.approx(sum(v.item() for n, v in terms.items() if n != "total"), rel=1e-6)


def test_what_is_the_same_as_its_neutral_face_has_no_difference():
    torch.manual_seed(0)
    head = ExpressionClassifiers(GenerativeNetworkSettings(kind="contrast", widths=WIDTHS), 3).eval()
    logits, difference = head([faces(2), faces(2)])
    assert difference.abs().max() == 0
    torch.testing.assert_close(logits[0], head.whole.bias.expand(2, -1))


def test_local_classifiers_read_the_joined_layers_of_one_size_and_the_last_reads_the_smallest_too():
    torch.manual_seed(0)
    head = ExpressionClassifiers(GenerativeNetworkSettings(kind="residue", widths=WIDTHS), 3).eval()
    maps = [one.detach() for one in NeutralFaceGenerator(WIDTHS).layers(faces(2))]
    before, _ = head(maps)
    assert len(before) == 4
    for place in range(7):
        changed = [one + (number == place) for number, one in enumerate(maps)]
        moved = [not torch.equal(a, b) for a, b in zip(before, head(changed)[0], strict=True)]
        assert moved == [number in (place, 6 - place) for number in range(3)] + [True]


def test_the_last_classifier_is_its_formula():
    torch.manual_seed(0)
    head = ExpressionClassifiers(GenerativeNetworkSettings(kind="residue", widths=WIDTHS), 3).double().eval()
    maps = [one.detach() for one in NeutralFaceGenerator(WIDTHS).double().layers(faces(2).double())]
    logits, _ = head(maps)
    parts = []
    for place, body in enumerate(head.bodies):
        convolution, norm, linear = body[0], body[1], body[5]
        joined = torch.cat([maps[place], maps[6 - place]], dim=1)
        values = torch.nn.functional.conv2d(joined, convolution.weight, convolution.bias, padding=1)
        values = np.maximum(values.detach().numpy() / np.sqrt(1 + norm.eps), 0)  # of a new norm: mean 0, deviation 1
        rows, columns = values.shape[2:]
        values = values.reshape(2, -1, rows // 2, 2, columns // 2, 2).max(axis=(3, 5)).reshape(2, -1)
        weight, bias = linear.weight.detach().numpy(), linear.bias.detach().numpy()
        parts.append(np.maximum(values @ weight.T + bias, 0))
    features = np.concatenate([*parts, maps[3].flatten(1).numpy()], axis=1)
    weight, bias = head.whole.weight.detach().numpy(), head.whole.bias.detach().numpy()
    np.testing.assert_allclose(logits[-1].detach().numpy(), features @ weight.T + bias, rtol=1e-9, atol=1e-12)


def test_distances_from_the_neutral_face_are_their_formula():
    torch.manual_seed(0)
    generator, rng = NeutralFaceGenerator(WIDTHS).eval(), np.random.default_rng(0)
    x, target = rng.integers(0, 256, (2, 5, 48, 48)).astype(np.uint8)
    found = distances(generator, Device(), torch.from_numpy(x), torch.from_numpy(target))
    with torch.no_grad():
        generated = generator(torch.from_numpy(x[:, None] / 127.5 - 1).float()).double().numpy()[:, 0]
    assert found["generated"] == pytest.approx(np.abs(generated - (target / 127.5 - 1)).mean(), rel=1e-5)
    assert found["input"] == pytest.approx((np.abs(x / 127.5 - target / 127.5)).mean(), rel=1e-6)


@pytest.mark.parametrize("name", ["derl", "gcnet"])
def test_an_interrupted_training_ends_with_the_same_bytes_and_is_stored_whole(name, tmp_path):
    samples, test = training_set(12, frames=5), other_set(6, frames=5)[0]
    one, work = trained(name, tmp_path / "whole")
    one.fit(samples, work)
    probabilities = one.predict(test, work)
    assert probabilities.shape == (6, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert work.facts["distance_from_neutral"].keys() == {"generated", "input"}

    class Stop(Exception):
        pass

    for at in (4, 5):  # in the first stage; and in the second, as both report their own steps

        def stopping(done, total, text, at=at, seen=[0]):  # noqa: B006
            seen[0] += 1
            if seen[0] == at:
                raise Stop

        other, work = trained(name, tmp_path / f"cut{at}", report=stopping)
        with pytest.raises(Stop):
            other.fit(samples, work)
        again, work = trained(name, tmp_path / f"cut{at}")
        again.fit(samples, work)
        for key, tensor in one.state().items():
            assert torch.equal(tensor, again.state()[key]), key
    loaded, work = trained(name, tmp_path / "load")
    loaded.load(one.state())
    np.testing.assert_array_equal(loaded.predict(test, work), probabilities)


def test_the_generator_is_not_changed_by_the_second_stage(tmp_path):
    samples = training_set(12, frames=5)
    states = []
    for epochs in (1, 3):
        one, work = trained("derl", tmp_path / str(epochs), f"finetune.epochs={epochs}")
        one.fit(samples, work)
        states.append(one.generator.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_they_need_sequences_that_begin_neutral_and_choose_no_epoch(tmp_path):
    for name in ("derl", "gcnet"):
        method = resolve(name, "tiny", "synth-sequences")
        assert method.family.needs(method) == {"sequences", "neutral"}
    one, work = trained("derl", tmp_path, keep_best=True)
    with pytest.raises(UsageError, match="an epoch cannot be chosen"):
        one.fit(training_set(12, frames=5), work)
