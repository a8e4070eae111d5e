"""Static convolutional networks: trunks, recipes, training, interruption, pre-training shared by trunks."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.cnn import fitted, little
from support.recognisers import CLASSES, check_resumption, other_set, training_set, workspace

from ferbench.errors import DataError, UsageError
from ferbench.methods.cnn.recipe import CnnRecipe
from ferbench.methods.cnn.recogniser import build, samples_of
from ferbench.methods.interface import FOLD, PRETRAIN
from ferbench.methods.recipes import resolve
from ferbench.protocol import protocol as protocols
from ferbench.runs.record import Record
from ferbench.schema import plain
from ferbench.training.checkpoint import pack, unpack
from ferbench.training.device import Device
from ferbench.training.samples import Computed, Shared, Tables

METHODS = ("resnet18", "small-cnn", "base-dcnn", "center-loss", "dlp-cnn", "il-cnn", "iacnn", "nm-softmax")


@pytest.mark.parametrize("name", METHODS)
def test_learns_predicts_saves_and_loads(name, tmp_path):
    method, work = little(name, "finetune.epochs=10", "finetune.lr=0.02"), workspace(tmp_path)
    recogniser = fitted(method, work)
    samples, labels = other_set()
    probabilities = recogniser.predict(samples, work)
    assert probabilities.shape == (12, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities.argmax(axis=1) == labels).mean() >= 0.75
    again = method.family.recogniser(method, FOLD, CLASSES)
    again.load({name: torch.as_tensor(one) for name, one in recogniser.state().items()})
    assert (again.predict(samples, work) == probabilities).all()
    assert work.facts["parameters"] > 0


def test_a_pre_training_of_the_same_trunk_is_taken_however_long_it_was():
    method, protocol = little("iacnn"), protocols.load("ckplus")
    longer = little("small-cnn", "pretrain.epochs=9")  # it shares the trunk, and with it the pre-training
    recipe = plain(longer.family.identity(PRETRAIN, longer, protocol))
    name = longer.family.owner(PRETRAIN, longer)[0]
    record = SimpleNamespace(key="0" * 16, identity=SimpleNamespace(method=name, recipe=recipe))
    method.family.check_parent(PRETRAIN, record, method, protocol)
    with pytest.raises(UsageError, match="was pre-trained with another network than IACNN has with preset tiny"):
        method.family.check_parent(PRETRAIN, record, little("iacnn", "network.feature=13"), protocol)
    with pytest.raises(UsageError, match="takes no finished run as attention"):
        method.family.check_parent("attention", record, method, protocol)


def test_samples_from_a_shared_table_give_the_same_bytes_as_computed_ones(tmp_path):
    """The table holds the whole set; a training gets its own rows. The fast engine takes it where folds look often."""
    samples, rows = training_set(24), np.arange(6, 18)
    mine = {name: getattr(samples, name)[rows] for name in ("images", "labels", "subjects", "sequences")}
    method, states = little("small-cnn", "finetune.epochs=2"), []
    for folds, engine in ((1, "plain"), (1, "fast"), (20, "fast")):
        home = tmp_path / f"{engine}{folds}"
        shared = Shared(samples.images, rows, home, folds)
        work = workspace(home, Device(engine=engine))
        states.append(pack(fitted(method, work, replace(samples, **mine, shared=shared)).state(), {}))
        kind = samples_of(replace(samples, **mine, shared=shared), method.recipe.finetune, "edge", work)
        assert isinstance(kind, Tables if folds == 20 else Computed)
    assert states[0] == states[1] == states[2]


@pytest.mark.parametrize("name", METHODS)
def test_interrupted_and_resumed_ends_with_the_same_bytes(name, tmp_path):
    check_resumption(fitted, little(name, "finetune.epochs=3"), tmp_path)


def test_best_epoch_is_that_of_the_validation_set_and_epochs_are_kept(tmp_path):
    method = little("small-cnn", "finetune.epochs=5")
    work = workspace(tmp_path, validation=training_set(12, seed=3), keep_best=True, epochs=tmp_path / "epochs")
    recogniser = method.family.recogniser(method, FOLD, CLASSES)
    history = recogniser.fit(training_set(), work)
    scores = [row["validation_accuracy"] for row in history]
    best = tmp_path / "epochs" / f"{int(np.argmax(scores)) + 1:03d}.safetensors"
    assert pack(unpack(best)[0], {}) == pack(recogniser.state(), {})


def test_bfloat16_trains_and_keeps_features_and_state_in_single_precision(tmp_path):
    method = little("center-loss", "finetune.epochs=1")
    state = fitted(method, workspace(tmp_path, Device(precision="bf16"))).state()
    assert {tensor.dtype for tensor in state.values()} <= {torch.float32, torch.int64}


def test_a_fold_starts_from_the_pretrained_network_but_for_the_classifier(tmp_path):
    method = little("center-loss", "finetune.epochs=1", "finetune.lr=1e-12")
    work = workspace(tmp_path)
    identity = work.identity.model_copy(update={"kind": PRETRAIN, "fold": ""})
    before = method.family.recogniser(method, PRETRAIN, ("anger", "sadness"))
    before.fit(_two_classes(), replace(work, identity=identity, folder=work.store.begin(identity)))
    finished(work, identity, before, ("anger", "sadness"))
    of_fold = work.identity.model_copy(update={"parents": {PRETRAIN: identity.key}})
    for classifier, taken in (("new", False), ("shared", True)):
        one = little("center-loss", "finetune.epochs=1", "finetune.lr=1e-12", f"finetune.classifier={classifier}")
        folder = tmp_path / classifier
        state = fitted(one, replace(work, identity=of_fold, folder=folder)).state()
        for name, theirs in before.state().items():
            if name.startswith(("trunk", "embedding")):
                torch.testing.assert_close(state[name], theirs, atol=1e-6, rtol=1e-6)
        anger = torch.allclose(state["classifier.weight"][0], before.state()["classifier.weight"][0], atol=1e-6)
        assert anger is taken


def _two_classes():
    samples = training_set()
    keep = samples.labels < 2
    return replace(
        samples,
        images=samples.images[keep],
        labels=samples.labels[keep],
        classes=("anger", "sadness"),
        subjects=samples.subjects[keep],
        sequences=samples.sequences[keep],
    )


def test_methods_of_one_trunk_and_preset_share_their_pretraining_and_no_more():
    ckplus = protocols.load("ckplus")

    def of(name: str, preset: str = "tiny", kind: str = PRETRAIN):
        method = resolve(name, preset, "ckplus")
        return method.family.owner(kind, method), method.family.identity(kind, method, ckplus)

    assert of("center-loss") == of("base-dcnn")
    assert of("center-loss")[0] == ("base-dcnn", "tiny")
    assert of("center-loss") != of("small-cnn")
    assert of("base-dcnn", "common") != of("base-dcnn")
    assert of("center-loss", kind=FOLD)[0] == ("center-loss", "tiny")
    assert of("center-loss", kind=FOLD)[1] != of("base-dcnn", kind=FOLD)[1]


def finished(work, identity, recogniser, classes: tuple[str, ...]) -> Record:
    """Store what was trained as a finished run."""
    folder = work.store.begin(identity)
    (folder / "weights.safetensors").write_bytes(pack(recogniser.state(), {}))
    record = Record(
        key=identity.key,
        experiment=identity.experiment,
        identity=identity,
        dataset="synth",
        classes=list(classes),
        environment={"device": "cpu"},
        facts={"folds": ["01"], "rule": "step", "split_hash": "0"},
        timings={},
        result={},
    )
    work.store.finish(record)
    return record


def test_a_finished_run_is_handed_on_as_a_module_of_the_same_answers(tmp_path):
    samples, _ = other_set()
    for kind in (FOLD, PRETRAIN):
        method = little("nm-softmax", "finetune.epochs=1", "pretrain.epochs=1")
        recipe = method.family.identity(kind, method, protocols.load("synth"))
        work = workspace(tmp_path / kind)
        work.identity = identity = work.identity.model_copy(update={"kind": kind, "recipe": plain(recipe)})
        recogniser = method.family.recogniser(method, kind, CLASSES)
        recogniser.fit(training_set(), work)
        record = finished(work, identity, recogniser, CLASSES)
        module = method.family.module(record, work.store)
        (logits,) = module(torch.from_numpy(samples.images).unsqueeze(1))
        probabilities = torch.softmax(logits, dim=1).numpy()
        np.testing.assert_allclose(probabilities, recogniser.predict(samples, work), atol=1e-6)
        assert module.outputs == ("logits",)
        with pytest.raises(UsageError, match="failed"):
            method.family.module(record.model_copy(update={"error": "it broke"}), work.store)


def test_the_paper_s_sizes():
    recipe: CnnRecipe = resolve("base-dcnn", "paper", "ckplus").recipe
    network = build(recipe, FOLD, 7)
    assert network.trunk(torch.zeros(2, 1, 48, 48)).shape == (2, 9216)


def test_folds_start_from_a_pretraining_where_the_recipe_and_the_protocol_have_one():
    parents_and_epochs = {}
    for name, preset, protocol in (
        ("base-dcnn", "common", "ckplus"),
        ("base-dcnn", "paper", "ckplus"),
        ("il-cnn", "paper", "ckplus"),
        ("il-cnn", "common", "fer2013"),
    ):
        method, rules = resolve(name, preset, protocol), protocols.load(protocol)
        parents = method.family.parents(FOLD, method, rules)
        parents_and_epochs[name, preset, protocol] = (
            [parent.role for parent in parents],
            method.family.epochs(FOLD, method, rules),
        )
        assert method.family.parents(PRETRAIN, method, rules) == []
    assert list(parents_and_epochs.values()) == [([PRETRAIN], 40), ([], 40), ([PRETRAIN], 40), ([], 80)]


def test_a_loss_s_fields_are_its_own():
    with pytest.raises(DataError, match="alpha"):
        resolve("center-loss", "tiny", "ckplus", ("loss.kind=softmax",))


def test_an_estimate_takes_seconds_for_images_and_epochs():
    from ferbench.methods.interface import Task

    method = resolve("small-cnn", "tiny", "ckplus")
    work_identity = workspace_identity()
    estimate = method.family.estimate(Device())
    assert estimate is not None
    task = Task(work_identity, method, protocols.load("ckplus"), None, 900, 10, 0.0, 90)
    whole = estimate(task, 1)
    assert whole > 0
    assert estimate(replace(task, done=1.0), 1) < whole / 10
    assert estimate(replace(task, images=1800), 1) > 1.5 * whole


def workspace_identity():
    from ferbench.runs.record import Identity

    return Identity(
        kind=FOLD,
        method="tried",
        preset="tiny",
        recipe={},
        protocol="ckplus@1",
        data="0" * 64,
        fold="01",
        seed=0,
        precision="fp32",
        code=1,
    )


def test_show_tells_sizes():
    method = resolve("small-cnn", "tiny", "ckplus")
    title, facts = method.family.describe(method, protocols.load("ckplus"))[0]
    assert title == "sizes"
    assert facts["feature"] == 256
    layers = 25 * 16 + 9 * 16 * 32 + 9 * 32 * 64 + 64 * 36 * 256 + 256 + 256 * 256 + 256 + 256 * 7 + 7
    assert facts["network parameters"] == f"{layers + 3 * (16 + 32 + 64) + 2:,}"  # normalisation and PReLU
