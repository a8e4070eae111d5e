"""The weights that come with the package: they fit today's recipes and code, and a user without their data gets them."""

import csv
import hashlib
import json
import re

import pytest
from support.command import ferbench
from support.datasets import lay_down, make_faces, people

from ferbench.errors import DataError
from ferbench.execution.options import Compute, TrainOptions
from ferbench.execution.training import prepare_training
from ferbench.methods.recipes import resolve
from ferbench.methods.wslgan.deployed import deployed
from ferbench.methods.wslgan.recipe import WslganRecipe
from ferbench.protocol import protocol as protocols
from ferbench.runs.store import shipped_runs
from ferbench.schema import plain

RECORDS = shipped_runs().records()
NETWORKS = [record for record in RECORDS if record.identity.kind == "pretrain"]
LABELS = [record for record in NETWORKS if record.identity.protocol == "fer2013@1"]  # the others: of people's votes
TARGET = people(10, ["anger", "happiness", "surprise"], frames=1)
TRAIN = [
    "train",
    "wslgan",
    "--dataset",
    "ckplus",
    "--preset",
    "tiny",
    "--folds",
    "01",
    "--epochs",
    "1",
    "--threads",
    "1",
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.key)
def test_each_is_what_the_recipe_of_today_would_train(record):
    identity = record.identity
    method, protocol = resolve(identity.method, identity.preset, "ckplus"), protocols.load("ckplus")
    assert identity.recipe == plain(method.family.identity(identity.kind, method, protocol))
    assert identity.code == method.family.revision.get(identity.kind, 1)
    assert identity.selection == "last"
    assert not record.error


@pytest.mark.parametrize("record", NETWORKS, ids=lambda record: record.key)
def test_each_network_has_its_attention_maps_and_can_be_built(record):
    assert deployed(record, shipped_runs())
    assert set(record.identity.parents.values()) <= {other.key for other in RECORDS}


def test_all_weights_together_stay_small():
    sizes = [path.stat().st_size for path in shipped_runs().home.rglob("*") if path.is_file()]
    assert 0 < sum(sizes) <= 18_500_000


def test_the_card_says_what_the_records_say():
    card = (shipped_runs().home / "README.md").read_text(encoding="utf-8")
    for record in RECORDS:
        (row,) = (line for line in card.splitlines() if record.key in line)
        results = [record.result] if record.identity.kind == "pretrain" else list(record.result.values())
        told = re.findall(r"([\d.]+) % of ([\d,]*\d)", row)
        assert told == [(f"{100 * one['validation_accuracy']:.2f}", f"{one['validation_images']:,}") for one in results]
        with (shipped_runs().folder(record.key) / "history.csv").open() as file:
            epochs = max(int(line["epoch"]) for line in csv.DictReader(file))
        assert f"{epochs} epochs" in row


@pytest.mark.parametrize("record", NETWORKS, ids=lambda record: record.key)
def test_each_network_says_how_many_images_of_each_class_it_learned_from(record):
    counts = record.facts["train_labels"]
    assert list(counts) == record.classes
    assert sum(counts.values()) == record.facts["train_images"]


@pytest.mark.slow
def test_with_the_target_set_alone_training_starts_from_them_and_says_so(tmp_path):
    lay_down(make_faces(TARGET, name="ckplus"), tmp_path / "data")
    told = ferbench(*TRAIN, cwd=tmp_path).stdout
    rows = json.loads(ferbench("runs", "--format", "json", cwd=tmp_path).stdout)
    assert [row["kind"] for row in rows] == ["fold"]
    record = json.loads((tmp_path / "runs" / rows[0]["key"] / "record.json").read_text())
    parents = record["identity"]["parents"]
    network = next(one for one in NETWORKS if one.key == parents["pretrain"])
    assert parents == {**network.identity.parents, "pretrain": network.key}
    for key in parents.values():
        assert re.search(f"come with ferbench.*{key}", told.replace("\n", " "))
    for kind, key in parents.items():
        weights = shipped_runs().folder(key) / "weights.safetensors"
        digits = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
        assert f"weights of the {kind} run {key} come with ferbench, SHA-256 {digits}" in record["facts"]["notes"]
    report = ferbench("report", "--format", "markdown", cwd=tmp_path).stdout
    assert report.count("(comes with ferbench)") == 2


def test_with_the_other_sets_prepared_they_are_trained_on(tmp_path):
    lay_down(make_faces(TARGET, name="ckplus"), tmp_path / "data")
    lay_down(make_faces([{"label": "anger", "split": "train"}], name="fer2013"), tmp_path / "data")
    told = ferbench(*TRAIN, "--dry-run", cwd=tmp_path).stdout
    assert "pre-training on fer2013" in told
    assert "attention: weights that come with ferbench" in told
    assert "pretrain: weights that come with ferbench" not in told
    assert "pretrain: weights of the same recipe come with ferbench, 64.59% of 3,589" in " ".join(told.split())
    assert "--pretrained 68eca49f takes them" in " ".join(told.split())
    told = ferbench(*TRAIN, "--set", "pretrain.epochs=1", "--dry-run", cwd=tmp_path).stdout
    assert "--pretrained" not in told


def test_a_network_that_is_named_is_taken_even_where_another_could_be_trained(tmp_path):
    lay_down(make_faces(TARGET, name="ckplus"), tmp_path / "data")
    alone = ferbench(*TRAIN, "--dry-run", cwd=tmp_path).stdout
    lay_down(make_faces([{"label": "anger", "split": "train"}], name="fer2013"), tmp_path / "data")
    network = next(one for one in LABELS if one.identity.preset == "tiny")
    named = ferbench(*TRAIN, "--pretrained", network.key[:6], "--dry-run", cwd=tmp_path).stdout
    assert "pre-training" not in named
    assert f"pretrain: weights that come with ferbench, 64.59% of 3,589 validation images {network.key}" in " ".join(
        named.split()
    )
    keys = [set(re.findall(r"[0-9a-f]{16}", told)) for told in (alone, named)]
    assert keys[0] == keys[1]  # the fold's run among them: what it learns from is the same
    assert len(keys[0]) == 3


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--pretrained", "0000"], "no finished run begins with '0000'"),
        (["--pretrained", "/68ec"], "no finished run begins with '/68ec'"),
        (["--pretrained", "attention"], "is no finished pretrain run (attention run)"),
        (
            ["--pretrained", "full"],
            "has another shape than WS-LGAN has with preset tiny: growth 32, not 12, stem_stride 1",
        ),
        (["--pretrained", "tiny", "--no-pretrain"], "WS-LGAN is not pre-trained here: leave out --pretrained"),
        (["--pretrained", "tiny", "--amg", "attention"], "name --pretrained or --amg, not both"),
        (["--pretrained", "tiny", "--set", "architecture.fusion=sum"], "fusion sfu, not sum"),
        (["--pretrained", "votes"], "asks for pre-training under fer2013@1, and run 0816bf7cd328bbae"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(tmp_path, more, said):
    lay_down(make_faces(TARGET, name="ckplus"), tmp_path / "data")
    keys = {one.identity.preset: one.key for one in LABELS} | {"votes": "0816bf7c"}
    keys["attention"] = next(
        one.key for one in RECORDS if (one.identity.kind, one.identity.preset) == ("attention", "tiny")
    )
    done = ferbench(*TRAIN, *(keys.get(word, word) for word in more), "--dry-run", cwd=tmp_path, code=2)
    assert said in " ".join(done.stderr.split())


def test_a_network_of_another_method_or_protocol_is_refused(tmp_path):
    lay_down(make_faces(TARGET, name="ckplus"), tmp_path / "data")
    network = next(one for one in LABELS if one.identity.preset == "tiny")
    train = ["train", "small-cnn", "--dataset", "ckplus", "--preset", "tiny", "--pretrained", network.key, "--dry-run"]
    done = ferbench(*train, cwd=tmp_path, code=2)
    assert "was pre-trained with another network, interpretation, method than Small CNN has" in " ".join(
        done.stderr.split()
    )
    synth = ["train", "wslgan", "--dataset", "synth", "--preset", "tiny", "--pretrained", network.key, "--dry-run"]
    done = ferbench(*synth, cwd=tmp_path, code=2)
    assert "asks for pre-training under synth-wild@1, and run" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("dataset", "shipped"),
    [
        pytest.param(name, record, id=f"{name}-{record.identity.preset}-{record.dataset}")
        for name in protocols.names()
        if not name.startswith(("synth", "celeba"))
        # What is trained from random weights has no pre-training to choose.
        for record in (NETWORKS if protocols.load(name).pretrain else LABELS)
    ],
)
def test_every_dataset_of_its_own_is_enough_at_presets_with_weights(tmp_path, monkeypatch, dataset, shipped):
    """On a new machine with one dataset: nothing but the folds is trained, from the shipped network of the preset."""
    monkeypatch.setattr(
        "ferbench.execution.session.estimated", lambda jobs, *rest: ({job.key: 0.0 for job in jobs}, {})
    )
    protocol = protocols.load(dataset)
    rows = [
        {**row, "split": split} | {name: f"{split}-{row[name]}" for name in ("id", "subject", "sequence")}
        for split in ("train", "val", "test")
        for row in people(11, [*protocol.classes])
    ]
    lay_down(make_faces(rows, name=protocol.dataset), tmp_path / "data")
    compute, source = Compute(device="cpu"), shipped.dataset if protocol.pretrain else ""
    options = TrainOptions("wslgan", dataset, shipped.identity.preset, pretrain_on=source, compute=compute)
    session = prepare_training([options], tmp_path / "runs", tmp_path / "data")
    assert {job.identity.kind for job in session.jobs} == {"fold"}
    parents = shipped.identity.parents["attention"]
    assert {job.identity.parents["attention"] for job in session.jobs} == {parents}
    if protocol.pretrain:
        assert {job.identity.parents["pretrain"] for job in session.jobs} == {shipped.key}


def test_a_preset_whose_weights_do_not_fit_the_target_is_not_advised(tmp_path, monkeypatch):
    """Advice that would be refused in turn is a dead end."""
    monkeypatch.setattr(WslganRecipe, "losses_of", lambda self, stage: self.losses)
    lay_down(make_faces(TARGET, name="oulu"), tmp_path / "data")
    options = TrainOptions("wslgan", "oulu", "tiny", compute=Compute(device="cpu"))
    with pytest.raises(DataError) as told:
        prepare_training([options], tmp_path / "runs", tmp_path / "data")
    assert "is not prepared" in str(told.value)
    assert "--preset" not in str(told.value)


def test_another_recipe_gets_none_of_them(tmp_path):
    lay_down(make_faces(TARGET, name="ckplus"), tmp_path / "data")
    done = ferbench(*TRAIN, "--set", "pretrain.epochs=1", cwd=tmp_path, code=3)
    assert "fer2013" in done.stderr
    assert "come with ferbench" not in done.stderr


def test_who_lacks_the_other_sets_is_told_the_presets_that_need_none(tmp_path):
    lay_down(make_faces(TARGET, name="ckplus"), tmp_path / "data")
    told = ferbench("train", "wslgan", "--dataset", "ckplus", cwd=tmp_path, code=3).stderr
    named = " or ".join(f"--preset {preset}" for preset in sorted(one.identity.preset for one in LABELS))
    assert f"or take {named}, whose weights come with ferbench" in " ".join(told.split())
    # No weights of a variant are shipped.
    told = ferbench("train", "gfnet", "--dataset", "ckplus", cwd=tmp_path, code=3).stderr
    assert "fer2013 is not prepared" in " ".join(told.split())
    assert "come with ferbench" not in told
