"""The weights that come with the package: they fit today's recipes and code, and a user without their data gets them."""

import csv
import hashlib
import json
import re

import pytest
from builders import lay_down, make_faces, people
from test_cli import ferbench

from ferbench.methods.recipes import resolve
from ferbench.methods.wslgan.trained import deployed
from ferbench.protocol import protocol as protocols
from ferbench.runs.store import shipped_runs
from ferbench.schema import plain

RECORDS = shipped_runs().records()
NETWORKS = [record for record in RECORDS if record.identity.kind == "pretrain"]
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
    assert identity.recipe == plain(method.kin.identity(identity.kind, method, protocol))
    assert identity.code == method.kin.revision.get(identity.kind, 1)
    assert identity.selection == "last"
    assert not record.error


@pytest.mark.parametrize("record", NETWORKS, ids=lambda record: record.key)
def test_each_network_has_its_attention_maps_and_can_be_built(record):
    assert deployed(record, shipped_runs())
    assert set(record.identity.parents.values()) <= {other.key for other in RECORDS}


def test_all_weights_together_stay_small():
    sizes = [path.stat().st_size for path in shipped_runs().home.rglob("*") if path.is_file()]
    assert 0 < sum(sizes) <= 15_000_000


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


def test_another_recipe_gets_none_of_them(tmp_path):
    lay_down(make_faces(TARGET, name="ckplus"), tmp_path / "data")
    done = ferbench(*TRAIN, "--set", "pretrain.epochs=1", cwd=tmp_path, code=3)
    assert "fer2013" in done.stderr
    assert "come with ferbench" not in done.stderr


def test_who_lacks_the_other_sets_is_told_the_presets_that_need_none(tmp_path):
    lay_down(make_faces(TARGET, name="ckplus"), tmp_path / "data")
    told = ferbench("train", "wslgan", "--dataset", "ckplus", cwd=tmp_path, code=3).stderr
    named = " or ".join(f"--preset {preset}" for preset in sorted(one.identity.preset for one in NETWORKS))
    assert f"or take {named}, whose weights come with ferbench" in " ".join(told.split())
    # No weights of a variant are shipped.
    told = ferbench("train", "gfnet", "--dataset", "ckplus", cwd=tmp_path, code=3).stderr
    assert "fer2013 is not prepared" in " ".join(told.split())
    assert "come with ferbench" not in told
