"""Patches and pooling over transforms, maps learned from a teacher, a tree of attributes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.recognisers import CLASSES, other_set, training_set, workspace

from ferbench.data import faces as prepared_sets
from ferbench.data.synthetic.sets import prepare_synthetic
from ferbench.errors import DataError
from ferbench.methods.cnn.guided import attributes_of
from ferbench.methods.cnn.losses import (
    attribute_loss,
    class_log_probabilities,
    leaf_log_probabilities,
    regression_loss,
    soft_center_loss,
    soft_center_step,
    tree_loss,
)
from ferbench.methods.cnn.recogniser import accuracy, build, targets
from ferbench.methods.cnn.trunks import patches, rotated
from ferbench.methods.interface import FOLD, PRETRAIN, AttributeSet
from ferbench.methods.recipes import resolve
from ferbench.protocol import protocol as protocols
from ferbench.runs.record import Record
from ferbench.training.augment import derive
from ferbench.training.checkpoint import pack
from ferbench.training.networks import seeded

LITTLE = {
    "dcma-cnns": ("network.patch_widths=[3,4]", "network.widths=[4,4,6]", "network.face_feature=8"),
    "fn2en": (
        "network.widths=[4,6,8,8,8]",
        "network.feature=16",
        "loss.epochs=2",
        "attributes.epochs=1",
        "loss.teacher={trunk='fn2en',widths=[4,4,4,6,6],depth=1,feature=8}",
    ),
    "pat-resnet": ("network.widths=[4,4,6,12]", "loss.node=32", "attributes.epochs=1"),
}


def little(name, *changes):
    return resolve(name, "tiny", "synth", (*LITTLE[name], *changes))


def network(name, *changes, kind=FOLD):
    return seeded(0, lambda: build(little(name, *changes).recipe, kind, 3)).eval()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    prepare_synthetic("synth-attributes", home)
    faces = prepared_sets.load("synth-attributes", home)
    few = replace(faces, images=faces.images[:120], samples=faces.samples.iloc[:120].copy())
    return AttributeSet(few, protocols.load_attributes("synth-attributes"), 0)


@pytest.fixture(scope="module")
def store(drawn, tmp_path_factory):
    """A store with the parent networks of FN2EN and PAT-ResNet, and their keys by kind."""
    work = workspace(tmp_path_factory.mktemp("parents"))
    keys = {}
    for name in ("fn2en", "pat-resnet"):
        method = little(name)
        kind = method.recipe.parent_kind
        identity = work.identity.model_copy(update={"kind": kind, "fold": "", "method": name})
        of_parent = replace(work, identity=identity, folder=work.store.begin(identity))
        learner = method.family.attribute_learner(method, kind)
        learner.fit(drawn, of_parent)
        (of_parent.folder / "weights.safetensors").write_bytes(pack(learner.state(), {}))
        work.store.finish(
            Record(
                key=identity.key,
                experiment=identity.experiment,
                identity=identity,
                dataset="synth-attributes",
                classes=["absent", "present"],
                environment={"device": "cpu"},
                facts=of_parent.facts,
                timings={},
                result=of_parent.result,
            )
        )
        keys[kind] = identity.key
    return work.store, keys


def at(home, method, store, **options):
    """A workspace of a fold whose parent network is trained."""
    held, keys = store
    work = workspace(home, **options)
    parents = {method.recipe.parent_kind: keys[method.recipe.parent_kind]} if method.recipe.parent_kind else {}
    return replace(work, store=held, identity=work.identity.model_copy(update={"parents": parents}))


def fitted(method, work, samples=None):
    recogniser = method.family.recogniser(method, FOLD, CLASSES)
    recogniser.fit(samples or training_set(), work)
    return recogniser


@pytest.mark.parametrize("name", LITTLE)
def test_learns_predicts_saves_and_loads(name, tmp_path, store):
    method = little(name, "finetune.epochs=20", "finetune.lr=0.02", "interpretation.pretrained=false")
    work = at(tmp_path, method, store)
    recogniser = fitted(method, work)
    samples, labels = other_set()
    probabilities = recogniser.predict(samples, work)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities.argmax(axis=1) == labels).mean() >= 0.7
    again = method.family.recogniser(method, FOLD, CLASSES)
    again.load({key: torch.as_tensor(one) for key, one in recogniser.state().items()})
    assert (again.predict(samples, work) == probabilities).all()


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("moment", [0.3, 0.7])
@pytest.mark.parametrize("name", LITTLE)
def test_interrupted_and_resumed_ends_with_the_same_bytes(name, moment, tmp_path, store):
    method = little(name, "finetune.epochs=3", "interpretation.pretrained=false")
    seen = []

    def killed(done, total, text):
        seen.append(done)
        if len(seen) > moment * limit:
            raise _KilledError

    whole = fitted(method, at(tmp_path / "whole", method, store, report=lambda *step: seen.append(step))).state()
    limit = len(seen)
    seen.clear()
    with pytest.raises(_KilledError):
        fitted(method, at(tmp_path / "killed", method, store, report=killed))
    assert pack(fitted(method, at(tmp_path / "killed", method, store)).state(), {}) == pack(whole, {})


@pytest.mark.parametrize("name", ["fn2en", "pat-resnet"])
def test_learning_attributes_resumes_with_the_same_bytes_and_tells_what_it_learned(name, drawn, tmp_path):
    method = little(name, "attributes.epochs=3")
    kind = method.recipe.parent_kind

    def learn(home, report=lambda done, total, text: None):
        work = workspace(home, report=report)
        learner = method.family.attribute_learner(method, kind)
        learner.fit(drawn, work)
        return pack(learner.state(), {}), work

    def killed(done, total, text):
        if done > total // 2:
            raise _KilledError

    whole, work = learn(tmp_path / "whole")
    with pytest.raises(_KilledError):
        learn(tmp_path / "killed", killed)
    assert learn(tmp_path / "killed")[0] == whole
    assert work.facts["learned"] == {"fn2en": "40 attributes", "pat-resnet": "the attribute Male"}[name]
    assert 0 <= work.result["validation_accuracy"] <= 1
    assert work.result["validation_images"] == 12


def test_parents_are_named_where_a_loss_needs_them():
    parents = {}
    for name, preset, kind in (
        ("dcma-cnns", "tiny", FOLD),
        ("fn2en", "tiny", FOLD),
        ("fn2en", "tiny", PRETRAIN),
        ("fn2en", "paper", FOLD),
        ("pat-resnet", "tiny", FOLD),
        ("pat-resnet", "tiny", PRETRAIN),
    ):
        method, rules = resolve(name, preset, "ckplus"), protocols.load("ckplus")
        parents[name, preset, kind] = [(one.role, one.protocol) for one in method.family.parents(kind, method, rules)]
    teacher, gender, wild = ("teacher", "celeba"), ("gender", "celeba"), (PRETRAIN, "fer2013")
    assert list(parents.values()) == [[wild], [teacher, wild], [teacher], [teacher], [gender, wild], []]


def test_the_tree_shares_the_pretraining_of_its_trunk():
    ckplus = protocols.load("ckplus")
    trainings = []
    for name in ("pat-resnet", "resnet18"):
        method = resolve(name, "tiny", "ckplus")
        trainings.append((method.family.owner(PRETRAIN, method), method.family.identity(PRETRAIN, method, ckplus)))
    assert trainings[0] == trainings[1]


# Patches


def test_patches_reassemble_to_the_image():
    x = torch.rand(2, 1, 48, 48, dtype=torch.float64)
    cut = patches(x, 24, 12)
    assert cut.shape == (2, 9, 24, 24)
    assert (cut[0, 5] == x[0, 0, 12:36, 24:48]).all()
    columns = cut.flatten(2).transpose(1, 2)
    whole, overlap = (torch.nn.functional.fold(part, 48, 24, stride=12) for part in (columns, torch.ones_like(columns)))
    torch.testing.assert_close(whole / overlap, x)


def test_a_turned_image_is_that_of_the_derived_samples():
    image = torch.randint(0, 256, (1, 48, 48), dtype=torch.uint8)
    theirs = derive(image, torch.tensor([5]))  # 10 degrees
    torch.testing.assert_close(rotated(image[None].float() / 255, 10.0), theirs, atol=0.51 / 255, rtol=0)


def test_pooling_over_a_group_of_transforms_is_invariant_to_them():
    net, x = network("dcma-cnns").double(), torch.rand(3, 1, 48, 48, dtype=torch.float64)
    assert net.trunk.mirror
    torch.testing.assert_close(net(x.flip(3)), net(x), atol=1e-12, rtol=0)
    net.trunk.mirror = False
    assert not torch.allclose(net(x.flip(3)), net(x), atol=1e-6)


def test_features_are_the_greatest_over_transforms():
    trunk, x = network("dcma-cnns", "network.turns=[-10.0,10.0]").trunk, torch.rand(2, 1, 48, 48)
    each = [trunk.vectors(one) for one in (x, x.flip(3), rotated(x, -10.0), rotated(x, 10.0))]
    torch.testing.assert_close(trunk(x), torch.stack(each).max(dim=0).values)


def test_without_the_patches_columns_the_whole_face_decides():
    net, x = network("dcma-cnns").double(), torch.rand(3, 1, 48, 48, dtype=torch.float64)
    layer, face = net.embedding[0], net.trunk.face
    with torch.no_grad():
        layer.weight[:, face:] = 0
    whole = torch.maximum(net.trunk.of_face(net.normalise(x)), net.trunk.of_face(net.normalise(x.flip(3))))
    wanted = net.classifier(torch.relu(whole @ layer.weight[:, :face].T + layer.bias))
    torch.testing.assert_close(net(x), wanted)


# The teacher


def test_stage_one_moves_convolutions_alone_and_leaves_the_teacher_as_it_is(tmp_path, store):
    method = little("fn2en", "interpretation.pretrained=false")
    work = at(tmp_path, method, store)
    before = work.parent("teacher")[1].read_bytes()
    net = network("fn2en")
    x = torch.rand(4, 1, 48, 48)
    regression_loss(net.regressed(x), torch.rand(4, 6, 3, 3)).backward()
    has_gradient = {name: parameter.grad is not None for name, parameter in net.named_parameters()}
    assert {name.split(".")[0] for name, moved in has_gradient.items() if moved} == {"trunk", "channels"}
    fitted(method, work)
    assert work.parent("teacher")[1].read_bytes() == before
    losses = work.facts["regression_loss"]
    assert len(losses) == 2
    assert losses[1] < losses[0]


def test_a_network_that_is_its_teacher_has_nothing_to_learn_in_stage_one():
    net = network("fn2en", "loss.teacher={trunk='fn2en',widths=[4,6,8,8,8],depth=1,feature=16}")
    with torch.no_grad():
        net.channels.weight.copy_(torch.eye(8)[:, :, None, None])
        net.channels.bias.zero_()
        x = torch.rand(2, 1, 48, 48)
        assert regression_loss(net.regressed(x), net.trunk.maps(net.normalise(x))) == 0


def test_a_fold_after_a_pretraining_has_stage_two_alone(tmp_path, store):
    method = little("fn2en", "finetune.epochs=1")
    work = at(tmp_path, method, store)
    before = method.family.recogniser(method, PRETRAIN, CLASSES)
    kind = work.identity.model_copy(update={"kind": PRETRAIN, "fold": ""})
    first = replace(work, identity=kind, folder=work.store.begin(kind), facts={})
    before.fit(training_set(), first)
    assert len(first.facts["regression_loss"]) == 2
    (first.folder / "weights.safetensors").write_bytes(pack(before.state(), {}))
    work.store.finish(
        Record(
            key=kind.key,
            experiment=kind.experiment,
            identity=kind,
            dataset="synth",
            classes=list(CLASSES),
            environment={"device": "cpu"},
            facts={},
            timings={},
            result={},
        )
    )
    of_fold = work.identity.model_copy(update={"parents": {**work.identity.parents, PRETRAIN: kind.key}})
    work = replace(work, identity=of_fold, facts={})
    fitted(method, work)
    assert "regression_loss" not in work.facts


# What is learned of attributes


def test_identities_are_learned_where_there_are_enough_people(drawn):
    faces = drawn.faces
    assert targets(faces, "either").title == "40 attributes"
    many = replace(faces, images=np.tile(faces.images, (5, 1, 1)), samples=faces.samples.iloc[np.tile(range(120), 5)])
    many.samples["subject"] = np.tile([f"{number}" for number in range(120)], 5)
    learned = targets(many, "either")
    assert (learned.title, learned.outputs) == ("identities of 120 people", 120)
    assert (np.bincount(learned.values) == 5).all()
    with pytest.raises(DataError, match="Grumpy"):
        targets(faces, "Grumpy")
    with pytest.raises(DataError, match="no two people"):
        targets(faces, "identities")


def test_images_of_a_test_partition_are_left_out(drawn):
    faces = replace(drawn.faces, samples=drawn.faces.samples.copy())
    faces.samples["split"] = ["train"] * 100 + ["test"] * 20
    assert targets(faces, "Male").rows.max() == 99


def test_losses_of_attributes_are_their_formulas():
    logits, values = torch.randn(5, 4, dtype=torch.float64), torch.randint(0, 2, (5, 4)).double()
    chance = 1 / (1 + (-logits).exp())
    wanted = -(values * chance.log() + (1 - values) * (1 - chance).log()).mean()
    torch.testing.assert_close(attribute_loss(logits, values), wanted)
    assert accuracy(torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])) == 0.75
    assert accuracy(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0])) == 0.5


# The tree


def tree_of(count=6, classes=4):
    generator = torch.Generator().manual_seed(1)

    def drawn_logits(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    root, inner = drawn_logits(count, 2).log_softmax(1), drawn_logits(count, 2, 2).log_softmax(2)
    return root, inner, drawn_logits(count, 4, classes)


def test_leaf_weights_are_products_along_the_path_and_sum_to_one():
    root, inner, _ = tree_of()
    weights = leaf_log_probabilities(root, inner).exp()
    torch.testing.assert_close(weights.sum(1), torch.ones(6, dtype=torch.float64))
    for gender in (0, 1):
        for cluster in (0, 1):
            wanted = root[:, gender].exp() * inner[:, gender, cluster].exp()
            torch.testing.assert_close(weights[:, 2 * gender + cluster], wanted)


def test_attributes_that_are_certain_make_a_hard_tree():
    _, _, logits = tree_of()
    chosen = torch.tensor([0, 1, 2, 3, 1, 2])
    weights = torch.full((6, 4), -torch.inf, dtype=torch.float64)
    weights[torch.arange(6), chosen] = 0.0
    torch.testing.assert_close(class_log_probabilities(weights, logits), logits[torch.arange(6), chosen].log_softmax(1))


def test_equal_leaves_are_a_network_without_a_tree():
    net, x = network("pat-resnet").double(), torch.rand(3, 1, 48, 48, dtype=torch.float64)
    for leaf in net.leaves[1:]:
        leaf.load_state_dict(net.leaves[0].state_dict())
    plain = net.leaves[0](net.embedding(net.trunk(net.normalise(x)))).log_softmax(1)
    torch.testing.assert_close(net(x).double(), plain, atol=1e-6, rtol=1e-5)


def test_the_tree_s_losses_are_their_formulas():
    root, inner, logits = tree_of()
    weights, labels = leaf_log_probabilities(root, inner), torch.tensor([0, 1, 2, 3, 0, 1])
    wanted = 0.0
    for image in range(6):
        for leaf in range(4):
            chance = logits[image, leaf].exp() / logits[image, leaf].exp().sum()
            wanted -= weights[image, leaf].exp() * chance[labels[image]].log() / 6
    torch.testing.assert_close(tree_loss(weights, logits, labels), wanted)
    features, shares = torch.randn(6, 3, 5).double(), torch.rand(6, 3, 2).double()
    centers = torch.randn(3, 2, 5).double()
    total, step = 0.0, torch.zeros_like(centers)
    for node in range(3):
        for value in range(2):
            share, center = shares[:, node, value, None], centers[node, value]
            total += (share * (features[:, node] - center).square()).sum() / 12
            step[node, value] = (share * (center - features[:, node])).sum(0) / (1 + share.sum())
    torch.testing.assert_close(soft_center_loss(features, shares, centers), total)
    torch.testing.assert_close(soft_center_step(features, shares, centers), step)


def test_centers_are_learned_and_every_training_image_has_a_leaf(tmp_path, store):
    method = little("pat-resnet", "finetune.epochs=1", "interpretation.pretrained=false")
    work = at(tmp_path, method, store)
    state = fitted(method, work).state()
    assert state["centers"].abs().sum() > 0
    assert "classifier.weight" not in state
    assert sum(work.facts["leaves"]) == 24
    attributes = attributes_of(training_set().images, method.recipe.network, work)
    assert np.bincount(2 * attributes[:, 0] + attributes[:, 1], minlength=4).tolist() == work.facts["leaves"]
