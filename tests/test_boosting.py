"""Boosted deep belief networks: patches, machines, rounds, and whole trainings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.recognisers import CLASSES, other_set, training_set, workspace

from ferbench.methods.boosting import Belief, Boosting, Patches, Tuning
from ferbench.methods.boosting.recogniser import (
    boltzmann_machine,
    choose,
    constant_units,
    fit_tops,
    patches_of,
    strong_classifier,
    top_units,
    tune,
    weak_classifiers,
)
from ferbench.methods.interface import FOLD
from ferbench.methods.recipes import presets, resolve
from ferbench.protocol import protocol as protocols
from ferbench.training.checkpoint import pack

ROUNDS = Boosting(rounds=6, ridge=1e-3, newton=6)
LITTLE = ("patches.stride=16", "belief.hidden=[24]", "belief.epochs=8", "boosting.rounds=4", "tuning.steps=5")


def fitted_on(samples, work, *changes):
    method = resolve("bdbn", "tiny", "synth", (*LITTLE, *changes))
    recogniser = method.family.recogniser(method, FOLD, CLASSES)
    return recogniser, recogniser.fit(samples, work)


def toy(count=120, patches=7, units=3, seed=0):
    """Units of patches that each tell a little of a sign, by a share of their own."""
    rng = np.random.default_rng(seed)
    signs = np.where(rng.random(count) < 0.4, 1.0, -1.0)
    values = rng.normal(0, 1, (patches, count, units))
    values[:, :, 0] += 0.7 * signs
    return values, signs


def test_patches_are_cut_row_by_row_and_each_is_stretched():
    image = np.arange(48 * 48).reshape(1, 48, 48) % 200 + 20
    patches = patches_of(image.astype(np.uint8), Patches(side=16, stride=8))
    assert patches.shape == (25, 1, 256)
    assert (patches.min(axis=2) == 0).all()
    assert (patches.max(axis=2) == 1).all()
    part = image[0, 8:24, 16:32].ravel()
    np.testing.assert_allclose(patches[7, 0], (part - part.min()) / (part.max() - part.min()))
    assert np.isfinite(patches_of(np.full((1, 48, 48), 7, dtype=np.uint8), Patches(side=16, stride=8))).all()


def test_images_are_told_from_noise_better_the_longer_a_machine_learns():
    values = patches_of(training_set().images, Patches(side=16, stride=16))[0]
    noise = np.random.default_rng(0).random(values.shape)
    gaps = []
    for epochs in (1, 60):
        rbm = boltzmann_machine(values, 16, Belief(hidden=(16,), epochs=epochs, lr=0.05, batch=8), 0)

        def energy(v, rbm=rbm):  # F(v) = −b·v − Σ_j log(1 + exp(c_j + W_j·v))
            hidden = np.logaddexp(0, v @ rbm.components_.T + rbm.intercept_hidden_).sum(axis=1)
            return float((-v @ rbm.intercept_visible_ - hidden).mean())

        gaps.append(energy(values) - energy(noise))
    assert gaps[1] < gaps[0] - 1


def test_a_last_batch_of_one_image_does_not_outweigh_what_the_machine_has_learned():
    values = patches_of(training_set(33).images, Patches(side=16, stride=16))[0]
    settings = Belief(hidden=(8,), epochs=5, lr=0.05, batch=8)
    machine = boltzmann_machine(values, 8, settings, 0)
    rng, weights = np.random.RandomState(0), None
    filled = np.concatenate([values, values[:7]])
    weights, hidden, visible = rng.normal(0, 0.01, (8, 256)), np.zeros(8), np.zeros(256)
    chains = np.zeros((8, 8))
    logistic = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    for _ in range(5):
        for batch in filled.reshape(5, 8, 256):
            drawn = rng.uniform(size=(8, 256)) < logistic(chains @ weights + visible)
            up, down = logistic(batch @ weights.T + hidden), logistic(drawn @ weights.T + hidden)
            weights += 0.05 * (up.T @ batch - down.T @ drawn) / 8
            hidden += 0.05 * (up - down).mean(axis=0)
            visible += 0.05 * (batch.mean(axis=0) - drawn.mean(axis=0))
            chains = (rng.uniform(size=down.shape) < down).astype(float)
    np.testing.assert_allclose(machine.components_, weights, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(machine.intercept_hidden_, hidden, rtol=1e-9, atol=1e-12)


def test_units_are_constant_where_their_activations_lie_in_a_range_below_a_twentieth():
    patches = np.array([[[0.0], [0.5], [1.0]]])  # one patch of three samples
    weights, biases = np.array([[[4.0, 0.19, -0.25, 4.0]]]), np.array([[0.0, 0.0, 0.0, -20.0]])
    ranges = [
        np.ptp(1 / (1 + np.exp(-(w * np.array([0, 0.5, 1]) + b))))
        for w, b in zip(weights[0, 0], biases[0], strict=True)
    ]
    assert [value < 0.05 for value in ranges] == [False, True, False, True]
    assert constant_units(patches, [(weights, biases)]) == 0.5
    second = (np.zeros((1, 4, 4)), np.zeros((1, 4)))  # all of its units are constant
    assert constant_units(patches, [(weights, biases), second]) == 0.75


def test_a_record_says_what_share_of_units_is_constant(tmp_path):
    sound, collapsed = workspace(tmp_path / "sound"), workspace(tmp_path / "collapsed")
    fitted_on(training_set(), sound, "belief.lr=0.05")
    fitted_on(training_set(), collapsed, "belief.lr=1")
    assert sound.facts["constant_units"] < 0.1
    assert not sound.notes
    assert collapsed.facts["constant_units"] > 0.3
    assert "% of the hidden units have nearly the same activation" in collapsed.notes[0]


def test_stacks_go_upward_by_sigmoids():
    rng = np.random.default_rng(0)
    patches = rng.random((2, 3, 4))
    layers = [(rng.normal(0, 1, (2, 4, 5)), rng.normal(0, 1, (2, 5))), (rng.normal(0, 1, (2, 5, 2)), np.zeros((2, 2)))]
    units = top_units(patches, layers)
    for place in range(2):
        values = patches[place]
        for weights, biases in layers:
            values = 1 / (1 + np.exp(-(values @ weights[place] + biases[place])))
        np.testing.assert_allclose(units[place], values)


def test_a_top_unit_is_at_the_minimum_of_its_loss():
    units, signs = toy()
    weights = np.random.default_rng(1).random(len(signs))
    weights /= weights.sum()
    tops = fit_tops(units, signs, weights, 0.01, 12)

    def loss(place, top):
        z = units[place] @ top[:-1] + top[-1]
        return (weights * np.logaddexp(0, -signs * z)).sum() + 0.01 / 2 * (top[:-1] ** 2).sum()

    for place in range(len(units)):
        least = loss(place, tops[place])
        for number in range(units.shape[2] + 1):
            for step in (-0.01, 0.01):
                moved = tops[place].copy()
                moved[number] += step
                assert loss(place, moved) > least


def test_rounds_are_those_of_the_formula_and_the_loss_falls_with_each():
    units, signs = toy()
    chosen = choose(units, signs, ROUNDS)
    assert len(set(chosen.patches)) == len(chosen.patches) == 6
    weights = np.full(len(signs), 1 / len(signs))
    total, before = np.zeros(len(signs)), 1.0
    for place, top, vote, loss in zip(chosen.patches, chosen.tops, chosen.votes, chosen.losses, strict=True):
        said = weak_classifiers(units[[place]], top[None])[0]
        np.testing.assert_allclose(said, 2 / (1 + np.exp(-(units[place] @ top[:-1] + top[-1]))) - 1)
        edge = (weights * signs * said).sum()
        assert vote == pytest.approx(0.5 * np.log((1 + edge) / (1 - edge)))
        weights = weights * np.exp(-vote * signs * said)
        weights /= weights.sum()
        total += vote * said
        assert loss == pytest.approx(np.exp(-signs * total).mean())
        assert loss < before
        before = loss
    assert chosen.errors[-1] == (signs * total <= 0).mean() < chosen.errors[0]


def test_a_patch_that_is_the_label_is_chosen_first():
    units, signs = toy()
    units[4] = 0.5
    units[4, :, 1] += 0.5 * signs
    assert choose(units, signs, ROUNDS).patches[0] == 4


def test_boosting_ends_where_no_patch_tells_anything():
    units, signs = np.zeros((3, 10, 2)), np.tile([1.0, -1.0], 5)
    assert len(choose(units, signs, ROUNDS).patches) == 0


def test_tuning_lowers_the_exponential_loss_of_the_strong_classifier():
    rng = np.random.default_rng(0)
    patches, signs = rng.random((3, 40, 6)), np.tile([1.0, -1.0], 20)
    layers = [(rng.normal(0, 1, (3, 6, 4)), rng.normal(0, 1, (3, 4)))]
    tops, votes = rng.normal(0, 1, (3, 5)), np.array([0.5, 0.3, 0.2])
    score = votes @ weak_classifiers(top_units(patches, layers), tops)
    scores = strong_classifier(
        *map(torch.from_numpy, (patches,)),
        [tuple(map(torch.from_numpy, layers[0]))],
        *map(torch.from_numpy, (tops, votes)),
    )
    np.testing.assert_allclose(scores.numpy(), score)
    settings = Tuning(loops=1, steps=20, lr=0.01)
    better, top, losses = tune(patches, layers, tops, votes, signs, settings)
    assert losses[0] == pytest.approx(np.exp(-signs * score).mean())
    assert (np.diff(losses) < 0).all()
    after = np.exp(-signs * (votes @ weak_classifiers(top_units(patches, better), top))).mean()
    assert after < losses[-1]


def test_learns_predicts_saves_and_loads(tmp_path):
    work = workspace(tmp_path)
    recogniser, history = fitted_on(training_set(45), work, "tuning.loops=2")
    samples, labels = other_set()
    probabilities = recogniser.predict(samples, work)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == labels).mean() >= 0.75
    assert work.facts["uncalibrated"]
    assert {row["loop"] for row in history} == {1, 2}
    assert {row["class"] for row in history} == set(CLASSES)
    method = resolve("bdbn", "tiny", "synth", LITTLE)
    again = method.family.recogniser(method, FOLD, CLASSES)
    again.load({name: torch.as_tensor(one) for name, one in recogniser.state().items()})
    assert (again.predict(samples, work) == probabilities).all()
    scores = np.log(probabilities)
    machines = np.stack(
        [one.score(patches_of(samples.images, recogniser.recipe.patches)) for one in recogniser.classifiers], 1
    )
    assert (np.abs(machines) <= 1).all()
    np.testing.assert_allclose(scores - scores[:, :1], machines - machines[:, :1], atol=1e-12)


def test_interrupted_and_begun_anew_ends_with_the_same_bytes(tmp_path):
    class KilledError(Exception):
        pass

    def killed(done, total, text):
        if done > total // 2:
            raise KilledError

    samples = training_set()
    whole = pack(fitted_on(samples, workspace(tmp_path / "whole"))[0].state(), {})
    with pytest.raises(KilledError):
        fitted_on(samples, workspace(tmp_path / "killed", report=killed))
    assert pack(fitted_on(samples, workspace(tmp_path / "killed"))[0].state(), {}) == whole
    assert pack(fitted_on(samples, workspace(tmp_path / "other", seed=1))[0].state(), {}) != whole


def test_a_changed_test_set_changes_nothing_of_a_sample_that_stays(tmp_path):
    work = workspace(tmp_path)
    recogniser, _ = fitted_on(training_set(), work)
    before = pack(recogniser.state(), {})
    samples, _ = other_set()
    probabilities = recogniser.predict(samples, work)
    poisoned = replace(samples, images=np.concatenate([samples.images[:4], 255 - samples.images[4:]]))
    np.testing.assert_allclose(recogniser.predict(poisoned, work)[:4], probabilities[:4], rtol=1e-12)
    assert pack(recogniser.state(), {}) == before


def test_nothing_comes_before_a_fold_and_every_preset_is_a_recipe():
    for preset in presets("bdbn"):
        method = resolve("bdbn", preset, "ckplus")
        assert method.family.parents(FOLD, method, protocols.load("ckplus")) == []
        assert not method.family.torch
