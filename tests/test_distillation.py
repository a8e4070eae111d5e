"""Pre-training with other networks: those that it has as teachers (the target, its rows, the plan, the teachers' mean)
and the one that it goes on from."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.datasets import lay_down, make_faces, people
from support.networks import CPU, SMALL, labelled
from support.recognisers import training_set, workspace
from support.runs import store_stage

from ferbench.errors import DataError, UsageError
from ferbench.execution import estimate
from ferbench.execution.jobs import Request, plan
from ferbench.methods.recipes import resolve, variants
from ferbench.methods.wslgan import cost as measured
from ferbench.methods.wslgan import stages
from ferbench.methods.wslgan.network import WSLGAN
from ferbench.methods.wslgan.recipe import PRESETS, LossWeights
from ferbench.methods.wslgan.recognisers import soft_targets
from ferbench.methods.wslgan.stages import Teacher, total_loss
from ferbench.protocol import protocol as protocols
from ferbench.runs.store import Store
from ferbench.training.checkpoint import pack
from ferbench.training.device import Device
from ferbench.training.plan import paired_epoch
from ferbench.training.samples import Computed

BY = ('pretrain.teachers=["tiny", "light"]', "pretrain.distil=0.25")


def test_the_target_is_the_label_and_to_a_share_what_the_teacher_says():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 7, dtype=torch.float64), torch.randint(0, 7, (2, 5))
    said = torch.rand(2, 5, 7, dtype=torch.float64)
    said /= said.sum(2, keepdim=True)
    terms = total_loss(tuple(logits), tuple(labels), ({}, {}), LossWeights(), 0.1, tuple(said), 0.3)
    for stream, name in enumerate(("stream1", "stream2")):
        hard = torch.full((5, 7), 0.1 / 7, dtype=torch.float64)
        hard[torch.arange(5), labels[stream]] += 0.9
        target = 0.7 * hard + 0.3 * said[stream]
        assert terms[name].item() == pytest.approx(-(target * logits[stream].log_softmax(1)).sum(1).mean().item())


def test_each_row_of_a_step_has_the_word_on_its_own_image():
    torch.manual_seed(0)
    labels, logits = torch.arange(8) % 3, torch.randn(8, 3)
    teacher = Teacher(torch.rand(8, 3).softmax(1), 1.0)
    (step,) = paired_epoch(labels.numpy(), "none", 8, 0, 0, "images")
    batch = step.on("cpu")
    network = SimpleNamespace(stream=lambda x, _: (logits[x.long()], {}))  # an "image" is its number
    terms = stages.pair_loss(
        network.stream, labels, lambda images, _: (images, None), batch, LossWeights(), CPU, 0.0, teacher
    )
    wanted = -(teacher.probabilities * logits.log_softmax(1)).sum(1).mean()  # the labels have no share left
    assert not torch.equal(batch.images, torch.arange(8))
    for name in ("stream1", "stream2"):
        torch.testing.assert_close(terms[name], wanted)


def test_a_training_follows_its_teacher_where_the_labels_say_nothing(tmp_path):
    recipe = resolve("gfnet", "tiny", "synth", ("pretrain.epochs=6", "pretrain.batch=8", "pretrain.lr=0.1")).recipe
    striped = labelled()
    images, classes = striped.images, striped.labels
    data = stages.LabelledImages(images, torch.zeros_like(classes))
    pixels = Computed(images, None, "edge", CPU)
    found = {}
    for share in (0.0, 1.0):
        torch.manual_seed(1)
        net = WSLGAN(replace(SMALL, features="global"), 3)
        teacher = Teacher(torch.eye(3)[classes], share)
        stages.train_network(
            net, data, pixels, recipe, recipe.pretrain, 5, CPU, tmp_path / str(share), lambda *_: None, teacher=teacher
        )
        found[share] = stages.accuracy(stages.predict(net, images, CPU), classes)
    assert found[0.0] == pytest.approx(1 / 3)  # all of the one class that the labels name
    assert found[1.0] > 0.9


def sets(home) -> None:
    lay_down(make_faces(people(10, ["anger", "happiness"], frames=1), name="ckplus"), home)
    lay_down(
        make_faces([{"label": "anger", "split": "train"}, {"label": "fear", "split": "val"}], name="fer2013"), home
    )
    attributes = {"narrow_eyes": 1, "eyeglasses": 0, "bags_under_eyes": 0}
    lay_down(make_faces([{"split": "train", **attributes}] * 2, name="celeba"), home)


def asked(preset: str, *overrides: str) -> Request:
    return Request(resolve("wslgan", preset, "ckplus", overrides), protocols.load("ckplus"), overrides=overrides)


def planned(home, *requests: Request):
    return plan(requests, home / "data", Store(home / "runs")).jobs


def test_teachers_are_the_pre_trainings_of_their_presets_and_come_before(tmp_path):
    sets(tmp_path / "data")
    jobs = planned(tmp_path, asked("tiny", *BY, "pretrain.epochs=2"))
    pretrained = [job for job in jobs if job.kind == "pretrain"]
    own = {
        preset: next(job for job in planned(tmp_path, asked(preset)) if job.kind == "pretrain")
        for preset in ("tiny", "light")
    }
    assert [job.key for job in pretrained[:2]] == [own["tiny"].key, own["light"].key]  # whatever was changed here
    student = pretrained[2]
    assert student.epochs == 2
    assert student.identity.parents == {
        "attention": own["tiny"].identity.parents["attention"],
        "teacher tiny": own["tiny"].key,
        "teacher light": own["light"].key,
    }
    assert student.identity.recipe["stage"]["distil"] == 0.25
    folds = [job for job in jobs if job.kind == "fold"]
    assert len(folds) == 10
    for fold in folds:
        assert fold.identity.parents == {"attention": student.identity.parents["attention"], "pretrain": student.key}
    assert [job.kind for job in jobs] == ["attention"] * 2 + ["pretrain"] * 3 + ["fold"] * 10


def test_a_fold_without_pre_training_has_no_teachers_which_saw_its_test_set(tmp_path):
    rows = [{"label": "anger", "split": split} for split in ("train", "val", "test")]
    lay_down(make_faces(rows, name="fer2013"), tmp_path / "data")
    method = resolve("gfnet", "tiny", "fer2013", (*BY, "pretrain.start=light"))
    (job,) = planned(tmp_path, Request(method, protocols.load("fer2013")))
    assert job.identity.parents == {}
    assert job.epochs == method.recipe.pretrain.epochs
    assert not {"start", "teachers", "distil"} & job.identity.recipe["stage"].keys()


@pytest.mark.parametrize("name", variants("wslgan"))
def test_no_preset_needs_itself_on_any_way(name):
    def above(preset, seen=()):
        assert preset not in seen
        stage = resolve(name, preset, "ckplus").recipe.pretrain
        for other in {*stage.teachers, stage.start} - {""}:
            above(other, (*seen, preset))

    for preset in PRESETS:
        above(preset)


def test_pre_training_goes_on_from_that_of_another_preset(tmp_path):
    sets(tmp_path / "data")
    before, own = (job for job in planned(tmp_path, asked("light", "pretrain.start=tiny")) if job.kind == "pretrain")
    tiny, light = (
        next(job for job in planned(tmp_path, asked(preset)) if job.kind == "pretrain") for preset in ("tiny", "light")
    )
    assert before.key == tiny.key
    assert own.identity.parents == {**light.identity.parents, "start tiny": tiny.key}
    assert own.identity.recipe["stage"] == {**light.identity.recipe["stage"], "start": "tiny"}
    with pytest.raises(UsageError, match="the network of wslgan at preset tiny has other shapes than that at wide"):
        planned(tmp_path, asked("wide", "pretrain.start=tiny"))


def test_weights_fit_at_another_resolution_unless_the_classifier_sees_its_size():
    wide, tiny, full = (resolve("wslgan", preset, "ckplus").recipe.architecture for preset in ("wide", "tiny", "full"))
    assert full.takes_weights_of(wide)
    assert not wide.takes_weights_of(tiny)
    flat = [replace(one, classifier_input="flatten") for one in (full, wide)]
    assert not flat[0].takes_weights_of(flat[1])
    assert flat[0].takes_weights_of(flat[0])


@pytest.mark.parametrize(
    ("kind", "classifier", "kept"),
    [
        ("start tiny", "new", ["anger", "fear", *"abcde"]),
        ("pretrain", "new", []),
        ("pretrain", "shared", ["anger", "fear", *"abcde"]),
        ("", "shared", []),
    ],
)
@pytest.mark.parametrize("own", [["anger", "fear", *"abcde"], ["contempt", "fear", "anger"]])
def test_training_begins_with_the_weights_of_its_parent(tmp_path, monkeypatch, kind, classifier, kept, own):
    store, shape = Store(tmp_path), replace(SMALL, features="global")
    torch.manual_seed(1)
    trained = WSLGAN(shape, 7).state_dict()
    key = store_stage(store, "pretrain", recipe={"architecture": shape.identity()})
    record = store.record(key).model_copy(update={"classes": ["anger", "fear", *"abcde"]})
    store.finish(record)
    (store.folder(key) / "weights.safetensors").write_bytes(pack(trained, {}))
    recipe = resolve("gfnet", "tiny", "ckplus", (f"finetune.classifier={classifier}",)).recipe.model_copy(
        update={"architecture": replace(shape, stem_stride=1)}
    )
    method = resolve("gfnet", "tiny", "ckplus").model_copy(update={"recipe": recipe})
    work = workspace(store.home, protocol=protocols.load("ckplus"))
    work.identity = work.identity.model_copy(update={"parents": {kind: key} if kind else {}})
    begun = {}
    monkeypatch.setattr(stages, "train_network", lambda network, *_, **__: begun.update(network.state_dict()) or [])
    samples = training_set(2)
    method.family.recogniser(method, "pretrain", tuple(own)).fit(replace(samples, classes=tuple(own)), work)
    heads = ("classifier.weight", "classifier.bias")
    same = {name: torch.equal(begun[name], tensor) for name, tensor in trained.items() if name not in heads}
    assert all(same.values()) == bool(kind)
    for name in heads:
        assert len(begun[name]) == len(own)
        for row, label in enumerate(own):
            places = [place for place, other in enumerate(record.classes) if other == label]
            found = [place for place in places if torch.equal(begun[name][row], trained[name][place])]
            assert bool(found) == (label in kept), (name, label)


@pytest.mark.parametrize("alone", BY)
def test_teachers_and_their_share_go_together(alone):
    with pytest.raises(DataError, match="teachers and distil go together"):
        resolve("wslgan", "tiny", "ckplus", (alone,))


def test_teachers_are_for_pre_training_alone():
    with pytest.raises(UsageError, match="field of the recipe"):
        resolve("wslgan", "tiny", "ckplus", ("finetune.distil=0.5",))


def test_the_estimate_counts_what_the_teachers_look_at(tmp_path, monkeypatch):
    sets(tmp_path / "data")
    monkeypatch.setattr(measured, "_measured", lambda name, *_: {"network": 3.0, "maps": 1.0}.get(name, 0.0))
    monkeypatch.setattr(estimate, "training_images", lambda _: 100)
    jobs = [job for job in planned(tmp_path, asked("tiny", *BY, "pretrain.epochs=2")) if job.kind == "pretrain"]
    found = estimate.seconds(
        jobs,
        Store(tmp_path / "runs"),
        {job.key: "absent" for job in jobs},
        Device(),
        {"pretrain": 1, "attention": 1, "fold": 1},
    )
    # two epochs with a map for each image, then both teachers: a forward pass is a third of a training pass
    assert found[jobs[-1].key] == pytest.approx(2 * 100 * (3 + 1) + 2 * 100 * (3 / 3 + 1))


def test_the_estimate_counts_once_the_maps_that_presets_share(tmp_path, monkeypatch):
    sets(tmp_path / "data")
    monkeypatch.setattr(measured, "_measured", lambda name, *_: 1.0 if name == "maps" else 0.0)
    monkeypatch.setattr(estimate, "training_images", lambda job: len(job.faces))

    def maps(*changes):
        """Seconds for the maps of both pre-trainings of the preset `wide`, which takes the AMG of `tiny`."""
        chosen = asked("wide", 'pretrain.teachers=["tiny"]', "pretrain.distil=0.5", *changes)
        jobs = [job for job in planned(tmp_path, chosen) if job.kind == "pretrain"]
        assert [job.identity.preset for job in jobs] == ["tiny", "wide"]
        found = estimate.seconds(
            jobs,
            Store(tmp_path / "runs"),
            {job.key: "absent" for job in jobs},
            Device(engine="fast"),
            {"pretrain": 1, "attention": 1, "fold": 1},
        )
        return [found[job.key] / len(jobs[0].faces) for job in jobs]

    # The teacher is asked of every image once. A table of all 14 samples is one for both.
    assert maps() == pytest.approx([14, 1])
    assert maps("pretrain.epochs=2") == pytest.approx([14, 2 + 1])


def test_what_the_teachers_say_is_the_mean_of_their_probabilities_and_kept(tmp_path):
    store, keys, networks = Store(tmp_path), {}, []
    shape = replace(SMALL, features="global")
    for seed in (1, 2):
        torch.manual_seed(seed)
        networks.append(WSLGAN(shape, 7).eval())
        key = store_stage(store, "pretrain", seed=seed, recipe={"architecture": shape.identity()})
        (store.folder(key) / "weights.safetensors").write_bytes(pack(networks[-1].state_dict(), {}))
        keys[f"teacher {seed}"] = key
    told, work = [], workspace(tmp_path)
    work.identity = work.identity.model_copy(update={"parents": {"attention": "none", **keys}})
    images = torch.randint(0, 256, (5, 48, 48), dtype=torch.uint8)

    def say(images=images):
        return soft_targets(images, 0.25, work, lambda *at: told.append(at))

    teacher = say()
    wanted = sum(stages.predict(network, images, CPU).double() for network in networks) / 2
    np.testing.assert_allclose(teacher.probabilities, wanted, rtol=1e-5)
    assert teacher.share == 0.25
    assert told == [(5, 10), (10, 10)]
    again = say()  # an interrupted training goes on with the same, and asks nobody
    assert torch.equal(again.probabilities, teacher.probabilities)
    assert told == [(5, 10), (10, 10)]
    work.identity = work.identity.model_copy(update={"parents": {"attention": "none"}})
    assert say() is None
