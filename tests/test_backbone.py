"""Networks of timm: trainings, interruption, batches that are fetched ahead, weights from files, deployed networks."""

import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.backbone import LOSSES, SMALL, fitted, little
from support.command import ferbench
from support.datasets import lay_down, make_faces, people
from support.recognisers import CLASSES, check_resumption, other_set, training_set, workspace
from support.torch_vision import define_missing_operators

from ferbench.data.views import IMAGES
from ferbench.errors import DataError, UsageError
from ferbench.execution.learned import with_weights
from ferbench.execution.options import TrainOptions
from ferbench.execution.requests import requests_of
from ferbench.files import sha256_of_file
from ferbench.methods.backbone.augment import changed, drawn
from ferbench.methods.backbone.batches import Batches, Speed
from ferbench.methods.backbone.heads import build
from ferbench.methods.backbone.networks import create, normalised, pictures
from ferbench.methods.backbone.recipe import Augment
from ferbench.methods.backbone.recogniser import BackboneEstimate, deployed
from ferbench.methods.interface import FOLD, EstimatesDuration, Family, HasNetwork, SampleSet, Task
from ferbench.methods.recipes import resolve
from ferbench.protocol import protocol as protocols
from ferbench.runs.facts import HeldOut
from ferbench.runs.store import Store
from ferbench.schema import validated
from ferbench.seeds import generator
from ferbench.training.checkpoint import pack, unpack
from ferbench.training.device import Device
from ferbench.training.prediction import PreparedNetwork, onnx_graph

define_missing_operators()
timm = pytest.importorskip("timm")


@pytest.mark.parametrize("loss", LOSSES)
def test_learns_predicts_saves_and_loads(loss, tmp_path):
    still = [f"augment.{name}=0.0" for name in ("flip", "shift", "rotate", "erase")]
    method, work = little(loss, "finetune.epochs=12", *still), workspace(tmp_path)
    recogniser = fitted(method, work)
    samples, labels = other_set()
    probabilities = recogniser.predict(samples, work)
    assert probabilities.shape == (12, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities.argmax(axis=1) == labels).mean() >= 0.75
    again = method.family.recogniser(method, FOLD, CLASSES)
    again.load({name: torch.as_tensor(one) for name, one in recogniser.state().items()})
    assert (again.predict(samples, work) == probabilities).all()
    assert not [name for name in recogniser.state() if name.startswith("memory.")]
    assert work.facts["timm"] == timm.__version__
    speeds = work.facts["images_per_second"]
    assert speeds["loader"] > speeds["network"] > 0


RESUMED = dict.fromkeys(LOSSES, ()) | {
    "mixup": ("finetune.ema=1.0", "finetune.sampling=sqrt", "finetune.optimizer=sgd", "augment.contrast=0.2"),
    "rul": ("finetune.sam=0.05",),
    "softmax": ("finetune.layer_decay=0.8", "finetune.head_rate=2.0", "augment.crop=0.6", "augment.saturation=0.2"),
}


@pytest.mark.parametrize("loss", RESUMED)
def test_interrupted_and_resumed_ends_with_the_same_bytes(loss, tmp_path):
    check_resumption(fitted, little(loss, *RESUMED[loss], "finetune.epochs=3"), tmp_path)


def test_best_epoch_is_that_of_the_validation_set_and_kept_epochs_are_loaded(tmp_path):
    method = little("scn", "finetune.epochs=4")
    work = workspace(tmp_path, validation=training_set(12, seed=3), keep_best=True, epochs=tmp_path / "epochs")
    recogniser = method.family.recogniser(method, FOLD, CLASSES)
    history = recogniser.fit(training_set(), work)
    best = int(np.argmax([row["validation_accuracy"] for row in history])) + 1
    kept = unpack(tmp_path / "epochs" / f"{best:03d}.safetensors")[0]
    again = method.family.recogniser(method, FOLD, CLASSES)
    again.load(kept)
    assert pack(again.state(), {}) == pack(recogniser.state(), {})


def test_bfloat16_keeps_weights_and_state_in_single_precision(tmp_path):
    method, work = little("ada-df", "finetune.epochs=1"), workspace(tmp_path, Device(precision="bf16"))
    recogniser = fitted(method, work)
    assert {tensor.dtype for tensor in recogniser.state().values()} <= {torch.float32, torch.int64}
    assert recogniser.predict(other_set()[0], work).dtype == np.float32


class _Lazy:
    """Pictures that are decoded when they are asked for, the first ones slowly."""

    def __init__(self, images: np.ndarray):
        self._images, self.shape = images, images.shape

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        time.sleep(0.002 * (rows[0] % 3))
        return self._images[rows]


def test_pixels_that_are_decoded_ahead_are_those_of_the_plan(tmp_path):
    train, method = training_set(), little("mixup", "finetune.epochs=2")
    states = []
    for name, images in (("array", train.images), ("lazy", _Lazy(train.images))):
        work = workspace(tmp_path / name)
        recogniser = fitted(method, work, replace(train, images=images))
        states.append(pack(recogniser.state(), {}))
        assert recogniser.predict(SampleSet(images=images), work).shape == (24, 3)
    assert states[0] == states[1]
    batches = Batches(_Lazy(train.images), train.labels, method.recipe, 0, Speed(Device()))
    steps = list(batches(1))
    assert len(steps) == len(batches(1)) == 3
    assert [step.last for step in steps] == [False, False, True]
    for step, planned in zip(steps, batches.plan(1), strict=True):
        assert (step.images == planned.images).all()
        assert (step.pixels == train.images[step.images]).all()


def test_an_error_of_a_thread_ends_the_training():
    batches = Batches(
        np.zeros((2, 48, 48), np.uint8), np.zeros(9, np.int64), little("softmax").recipe, 0, Speed(Device())
    )
    with pytest.raises(IndexError):
        list(batches(0))


@pytest.mark.parametrize(
    ("sampling", "shares"), [("shuffled", (0.8, 0.2)), ("balanced", (0.5, 0.5)), ("sqrt", (2 / 3, 1 / 3))]
)
def test_classes_are_sampled_as_often_as_the_recipe_says(sampling, shares):
    labels = np.repeat([0, 1], [1600, 400])
    recipe = little("softmax", f"finetune.sampling={sampling}", "finetune.batch=2000").recipe
    batches = Batches(np.zeros((2000, 8, 8), np.uint8), labels, recipe, 0, Speed(Device()))
    (step,) = batches(0)
    found = np.bincount(labels[step.images]) / 2000
    assert found == pytest.approx(shares, abs=0.04)
    assert (len(set(step.images)) == 2000) == (sampling == "shuffled")


def changes(x: torch.Tensor, **settings: float) -> torch.Tensor:
    found = drawn(len(x), Augment(**settings), x.shape[-1], generator(0, "changes"))
    return changed(x, **{name: torch.from_numpy(values) for name, values in found.items()})


def test_images_are_changed_by_what_was_drawn():
    x = torch.rand(64, 3, 16, 16)
    assert changes(x) is x
    mirrored = changes(x, flip=1.0)
    torch.testing.assert_close(mirrored, x.flip(3), atol=1e-5, rtol=0)
    some = (changes(x, flip=0.5) - x).abs().amax(dim=(1, 2, 3)) > 1e-4
    assert 16 < int(some.sum()) < 48
    across = (torch.arange(16) / 15).expand(64, 3, 16, 16).clone()
    shifted = changes(across, shift=0.25)
    assert float((shifted - across).abs().max()) == pytest.approx(0.25 * 16 / 15, abs=0.02)
    cropped = changes(across, crop=0.5)
    assert bool((cropped.amax(dim=(1, 2, 3)) - cropped.amin(dim=(1, 2, 3)) >= 0.6).all())
    assert bool((cropped.diff(dim=3) > -1e-6).all())
    # A gradient turned by up to 90 degrees still spans at most the grey levels of the image.
    turned = changes(across, rotate=90.0)
    assert float(turned.diff(dim=2).abs().max()) > 0.05
    still = (changes(x, rotate=90.0, shift=0.2, crop=0.5, moved=0.25) - x).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert 36 <= int(still.sum()) < 60
    bright = changes(torch.full((64, 1, 8, 8), 0.5), brightness=0.4).mean(dim=(1, 2, 3))
    assert 0.3 <= float(bright.min()) < 0.4 < 0.6 < float(bright.max()) <= 0.7
    faded = changes(x, contrast=0.5).std(dim=(2, 3)) / x.std(dim=(2, 3))
    assert 0.5 <= float(faded.min()) < 0.7
    pale = changes(x, saturation=1.0)
    spread = (pale.amax(dim=1) - pale.amin(dim=1)).mean(dim=(1, 2))
    assert float(spread.min()) < 0.1 < float(spread.max())
    erased = changes(x, erase=1.0, erased=0.1)
    share = ((erased != x).any(dim=1)).float().mean(dim=(1, 2))
    assert bool((share > 0).all())
    assert bool((share < 0.15).all())


def test_networks_see_images_of_any_size_and_colour_as_their_recipe_says():
    recipe = little("softmax").recipe
    grey = torch.randint(0, 256, (2, 48, 48), dtype=torch.uint8)
    x = pictures(grey, recipe.input)
    assert x.shape == (2, 3, 32, 32)
    torch.testing.assert_close(x, pictures(grey[..., None].expand(-1, -1, -1, 3), recipe.input))
    same = pictures(grey[:, :32, :32], recipe.input)
    assert torch.equal(same[:, 1], grey[:, :32, :32] / 255)
    mean, std = (torch.tensor(values)[:, None, None] for values in (recipe.input.mean, recipe.input.std))
    torch.testing.assert_close(normalised(x, recipe.input), (x - mean) / std)
    one = little("softmax", "input.colour=grey").recipe
    levels = pictures(grey[..., None].expand(-1, -1, -1, 3), one.input)
    torch.testing.assert_close(levels, pictures(grey, one.input))
    torch.testing.assert_close(normalised(levels, one.input), (levels - mean.mean()) / std.mean())
    assert build(one, 3).eval()(normalised(levels, one.input)).shape == (2, 3)
    with pytest.raises(DataError, match=r"input\.mean has one value or three"):
        little("softmax", "input.mean=[0.5,0.5]")


@pytest.mark.parametrize("model", ["test_vit", "test_convnext", "test_efficientnet", "mobilenetv4_conv_small_035"])
def test_other_networks_of_timm_have_features_and_maps(model):
    x = torch.zeros(2, 3, 32, 32)
    for loss in ("softmax", "dan", "eac", "rul"):
        network = build(little(loss, f"network.model={model}").recipe, 3).eval()
        assert network(x).shape == (2, 3)
        assert network.maps(x).shape[:2] == (2, network.channels)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(UsageError, match="Ada-DF branches after the first stage of a ResNet, which test_vit is not"):
        build(little("ada-df", "network.model=test_vit").recipe, 3)
    with pytest.raises(UsageError, match="'resnet_of_mine' is no network of timm"):
        build(little("softmax", "network.model=resnet_of_mine").recipe, 3)
    for name in ("hf_hub:timm/resnet18.a1_in1k", "resnet18.a1_in1k", "../resnet18"):
        with pytest.raises(DataError, match="ferbench downloads no weights"):
            little("softmax", f"network.model={name}")
    network = build(little("ada-df").recipe, 3)
    with pytest.raises(UsageError, match="the layers of ada-df have no single order"):
        network.parameter_groups(little("ada-df", "finetune.layer_decay=0.5").recipe.finetune)


def test_layers_further_from_the_classifier_learn_more_slowly():
    recipe = little("softmax", "finetune.layer_decay=0.5", "finetune.head_rate=10.0").recipe
    network = build(recipe, 3)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = network.parameter_groups(recipe.finetune)
    scales = {names[id(one)]: group["scale"] for group in groups for one in group["params"]}
    assert scales.keys() == dict(network.named_parameters()).keys()
    assert scales["classifier.weight"] == 10
    order = ["backbone.conv1.0.weight", "backbone.layer1.0.conv1.weight", "backbone.layer4.0.conv1.weight"]
    found = [scales[name] for name in order]
    assert found == sorted(found)
    assert found[0] < found[-1] < 1
    (group,) = network.parameter_groups(little("softmax").recipe.finetune)
    assert group["scale"] == 1


def test_an_image_is_relabelled_from_the_epoch_that_the_recipe_says(tmp_path):
    method = little("scn", "finetune.epochs=4", "finetune.lr=1e-12", "loss.relabel_epoch=3", "loss.relabel_margin=0.0")
    train = training_set()
    seen = []

    def look(done: int, total: int, text: str) -> None:
        if done % 3 == 0:
            seen.append(recogniser.network.memory.labels.clone())

    recogniser = method.family.recogniser(method, FOLD, CLASSES)
    recogniser.fit(train, workspace(tmp_path, report=look))
    original = torch.tensor(train.labels)
    assert [torch.equal(labels, original) for labels in seen] == [True, True, False, False]


def test_distributions_of_classes_are_the_mean_predictions_of_the_epoch_before(tmp_path):
    method = little("ada-df", "finetune.epochs=1")
    recogniser = fitted(method, workspace(tmp_path))
    memory = recogniser.network.memory
    np.testing.assert_allclose(memory.distributions.sum(dim=1), 1, rtol=1e-5)
    assert not torch.equal(memory.distributions[0], torch.tensor([0.7, 0.15, 0.15]))
    assert not memory.counts.any()


def stored(recipe, path, **arguments):
    """Weights as timm writes them, of another number of classes."""
    torch.manual_seed(1)
    network = timm.create_model(recipe.network.model, num_classes=11, **arguments)
    save_file(network.state_dict(), path)
    return network.eval()


def test_training_starts_from_the_weights_of_a_file_without_its_classifier(tmp_path):
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "model.safetensors"
    method = little("softmax", "network.weights=folder", "finetune.lr=1e-12", "finetune.epochs=1", folder=tmp_path)
    theirs = stored(method.recipe, path)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(create(method.recipe, path).eval().forward_features(x), theirs.forward_features(x))
    work = workspace(tmp_path / "runs")
    state = fitted(method, work).state()
    torch.testing.assert_close(
        state["backbone.conv1.0.weight"], theirs.state_dict()["conv1.0.weight"], atol=1e-6, rtol=0
    )
    assert state["classifier.weight"].shape[0] == 3
    digest = sha256_of_file(path)
    assert work.facts["weights"] == {"file": "model.safetensors", "sha256": digest, "trained_on": "unknown"}
    assert digest[:12] in work.notes[0]
    one = little("softmax", "input.colour=grey").recipe
    torch.testing.assert_close(
        create(one, path).state_dict()["conv1.0.weight"], theirs.state_dict()["conv1.0.weight"].sum(dim=1, keepdim=True)
    )
    again = method.family.recogniser(method, FOLD, CLASSES)
    path.unlink()
    again.load(state)  # a finished run needs the file no more


def test_a_transformer_adapts_the_positions_of_stored_weights(tmp_path):
    recipe, path = little("softmax", "network.model=test_vit", "input.size=64").recipe, tmp_path / "vit.safetensors"
    stored(recipe, path, img_size=160)
    assert build(recipe, 3, path).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_weights_are_named_by_their_content_in_the_identity(tmp_path):
    protocol, recipe = protocols.load("synth"), little("softmax").recipe
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        stored(recipe, tmp_path / folder / "w.safetensors")
    identities = []
    for change in ("network.weights=a/w.safetensors", "network.weights=b/w.safetensors", "network.trained_on=ImageNet"):
        method = little("softmax", change, folder=tmp_path)
        identities.append(method.family.identity(FOLD, method, protocol))
    assert identities[0] == identities[1]
    assert identities[0]["network"] == {"model": "test_resnet", "weights": sha256_of_file(tmp_path / "a/w.safetensors")}
    assert identities[2]["network"] == {"model": "test_resnet"}
    assert not {"warmup", "sam", "sampling", "layer_decay"} & identities[2]["stage"].keys()


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("missing.safetensors", UsageError, "is no safetensors file"),
        ("code.pth", UsageError, "is no safetensors file"),
        ("vit.safetensors", DataError, "does not hold weights of test_resnet"),
        ("broken.safetensors", DataError, "does not hold weights of test_resnet"),
    ],
)
def test_other_files_are_refused(tmp_path, name, error, words):
    (tmp_path / "code.pth").write_bytes(b"")
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    stored(little("softmax", "network.model=test_vit").recipe, tmp_path / "vit.safetensors")
    method = little("softmax", f"network.weights={name}", folder=tmp_path)
    with pytest.raises(error, match=words):
        fitted(method, workspace(tmp_path / "runs"))


@pytest.mark.parametrize(
    ("trained_on", "status"), [("unknown", "unknown"), ("ImageNet", "yes"), ("ImageNet, CK+", "no")]
)
def test_a_test_set_is_held_out_only_if_the_weights_at_the_start_did_not_learn_from_it(trained_on, status):
    faces = make_faces(people(3, ["anger"]), name="ckplus")
    facts = {"weights": {"trained_on": trained_on}}
    place = protocols.load("ckplus"), faces, np.arange(2)
    assert with_weights(HeldOut(status="yes"), facts, *place).status == status
    assert with_weights(HeldOut(status="yes"), {}, *place) == HeldOut(status="yes")


def test_a_network_is_deployed_for_images_of_its_size_and_colour(tmp_path):
    method = little("dan", "finetune.epochs=1", "input.size=48", "input.colour=grey")
    assert method.family.view(method) == IMAGES
    work = workspace(tmp_path)
    recogniser = fitted(method, work)
    path = work.folder / "weights.safetensors"
    path.write_bytes(pack(recogniser.state(), {}))
    record = SimpleNamespace(key="0" * 16, classes=list(CLASSES), error="", identity=SimpleNamespace(selection="last"))
    store = SimpleNamespace(file=lambda record, name: work.folder / name)
    images = other_set()[0].images
    module = deployed(method, record, store)
    (logits,) = PreparedNetwork(module, Device())(torch.tensor(images))
    expected = recogniser.predict(SampleSet(images=images), work)
    np.testing.assert_allclose(logits.softmax(dim=1), expected, atol=1e-6)
    assert len(onnx_graph(module)) > 100_000
    colour = little("dan", "finetune.epochs=1")
    path.write_bytes(pack(fitted(colour, workspace(tmp_path / "colour")).state(), {}))
    assert deployed(colour, record, store).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("method", "dataset"), [("timm-resnet18", "ferplus-public"), ("timm-resnet18", "ckplus"), ("gfnet", "ckplus")]
)
def test_epochs_are_those_of_the_last_training(method, dataset):
    (request,) = requests_of([TrainOptions(method, dataset, preset="tiny", epochs=3)])
    assert request.method.recipe.finetune.epochs == 3
    (request,) = requests_of([TrainOptions("gfnet", "ferplus-public", preset="tiny", epochs=3)])
    assert request.method.recipe.pretrain.epochs == 3


def test_the_family_says_what_it_sees_needs_and_takes():
    method, protocol = resolve("scn", "common", "ckplus"), protocols.load("ckplus")
    assert str(method.family.view(method)) == "112 rgb"
    assert isinstance(method.family, HasNetwork)
    assert isinstance(method.family, EstimatesDuration)
    assert method.family.parents(FOLD, method, protocol) == []
    assert Family.view(method.family, method) == IMAGES
    (title, sizes), *_ = method.family.describe(method, protocol)
    assert (title, sizes["network parameters"], sizes["input"]) == ("sizes", "11,180,616", "112 rgb")


@pytest.mark.parametrize("loss", ["softmax", "rul", "dan"])
def test_an_estimate_is_of_a_measured_step(loss):
    estimate = BackboneEstimate(Device())
    task = SimpleNamespace(method=little(loss, "finetune.epochs=2"), images=100, tested=0, done=0.0, retested=False)
    seconds = estimate(task, 1)
    assert 0 < seconds < 60
    task.method = little(loss, "finetune.epochs=2", "finetune.sam=0.1")
    assert estimate(task, 1) == 2 * seconds
    task.done = 1.0
    assert estimate(task, 1) == 0
    assert set(Task.__dataclass_fields__) >= set(vars(task))


def test_without_timm_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"pip install 'ferbench\[timm\]'"):
        build(little("softmax").recipe, 3)


def test_a_change_may_name_a_field_of_any_kind_of_a_table():
    assert little("softmax", "loss.smoothing=0.2").recipe.loss.smoothing == 0.2
    with pytest.raises(DataError, match=r"loss\.scn\.smoothing"):
        little("scn", "loss.smoothing=0.2")
    with pytest.raises(UsageError, match=r"did you mean loss\.smoothing"):
        little("softmax", "loss.smothing=0.2")
    assert validated(Augment, {}, "augment") == Augment()


def test_a_fold_from_weights_of_a_file_is_trained_tested_and_evaluated_by_the_commands(tmp_path):
    lay_down(make_faces(people(10, ["anger", "fear", "surprise"]), name="ckplus"), tmp_path / "data")
    stored(little("softmax").recipe, tmp_path / "w.safetensors")
    changes = [word for change in (*SMALL, "network.weights=w.safetensors") for word in ("--set", change)]
    train = [
        "train",
        "scn",
        "-d",
        "ckplus",
        "--preset",
        "tiny",
        "--folds",
        "01",
        "--epochs",
        "1",
        "--jobs",
        "1",
        *changes,
    ]
    ferbench(*train, cwd=tmp_path)
    (record,) = Store(tmp_path / "runs").records()
    assert record.identity.recipe["network"]["weights"] == sha256_of_file(tmp_path / "w.safetensors")
    assert record.facts["held_out"]["status"] == "unknown"
    assert record.facts["held_out"]["why"] == "it is not stated what was learned from"
    (tmp_path / "w.safetensors").unlink()
    done = ferbench("evaluate", record.key, "-d", "ckplus", cwd=tmp_path)
    assert "held out" in done.stdout
    done = ferbench("export", record.key, "--out", "net.onnx", cwd=tmp_path)
    assert "parity with float64" in done.stdout
    (tmp_path / "net.toml").write_text(ferbench("card", "net.onnx", cwd=tmp_path).stdout)
    ferbench("evaluate", "net.toml", "-d", "ckplus", cwd=tmp_path)
    store = Store(tmp_path / "runs")
    again, own = (
        [one for one in store.records() if one.identity.method == name and one.identity.kind == "transfer"]
        for name in ("net", "scn")
    )
    columns = [f"p_{name}" for name in own[0].classes]
    ours, theirs = (store.predictions(one[0].key)[columns].to_numpy() for one in (own, again))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
