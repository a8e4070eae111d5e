"""``ferbench protocol`` and ``ferbench audit``: what they print, write and end with."""

import json

import pytest
from support.datasets import lay_down, make_faces, people
from typer.testing import CliRunner

from ferbench.cli.main import app
from ferbench.data.faces import load
from ferbench.errors import CheckFailed, UsageError
from ferbench.labels import CELEBA_ATTRIBUTES, in_order
from ferbench.protocol import protocol as room

CLASSES = list(room.load("ckplus").classes)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    lay_down(make_faces(people(12, CLASSES, frames=4), name="ckplus"), tmp_path / "data")
    return tmp_path


def ferbench(*words: str) -> str:
    """Run in this process; an error of the verb comes out as itself."""
    result = CliRunner().invoke(app, list(words), catch_exceptions=False, standalone_mode=False)
    return result.stdout


def test_list_names_every_protocol():
    listed = json.loads(ferbench("protocol", "list", "--format", "json"))["protocols"]
    assert [name.split("@")[0] for name in listed] == room.names()


def test_show_prints_rules_folds_and_hash(home):
    shown = json.loads(ferbench("protocol", "show", "ckplus", "--format", "json"))
    assert shown["protocol"]["classes"] == CLASSES
    assert [fold["fold"] for fold in shown["folds"]] == [f"{n:02d}" for n in range(1, 11)]
    first = {
        "fold": "01",
        "train": 210,
        "test": 42,
        "subjects": 2,
        "An": 6,
        "Co": 6,
        "Di": 6,
        "Fe": 6,
        "Ha": 6,
        "Sa": 6,
        "Su": 6,
    }
    assert shown["folds"][0] == first
    assert shown["split"]["checked"] == "every sample tested once"
    assert shown["split"]["audit"].startswith("0 subjects shared, 0 spelled in two ways; the training set has 0 of")
    assert (shown["split"]["images"], shown["split"]["subjects"]) == (252, 12)
    assert shown["split"]["notes"] == ["252 images take part; the protocol expects 981"]
    console = ferbench("protocol", "show", "ckplus")
    assert shown["split"]["sha256"] in console
    assert "fold  train  test  subjects  An  Co  Di" in console


def test_show_without_the_set_or_without_its_split_still_shows_the_rules(home):
    shown = json.loads(ferbench("protocol", "show", "oulu", "--format", "json"))
    assert shown["protocol"]["classes"] == in_order(shown["protocol"]["classes"])
    assert "not prepared" in shown["missing"]["split"]
    lay_down(make_faces([{"label": "anger", "split": s} for s in ("train", "val")], name="fer2013"), home / "data")
    shown = json.loads(ferbench("protocol", "show", "fer2013", "--format", "json"))
    assert "fer2013-public" in shown["missing"]["split"]
    shown = json.loads(ferbench("protocol", "show", "fer2013-public", "--format", "json"))
    assert "images of unknown subject; the training set has 0 of" in shown["split"]["audit"]
    assert "subjects" not in shown["folds"][0]


def test_show_draws_the_attributes(home):
    rows = [dict.fromkeys(CELEBA_ATTRIBUTES, int(n < 33)) for n in range(66)]
    lay_down(make_faces(rows, name="celeba"), home / "data")
    shown = json.loads(ferbench("protocol", "show", "celeba", "--format", "json"))
    assert shown["drawn"] == [{"part": part, "train": 60, "validation": 6} for part in ("eyes", "mouth")]
    assert len(shown["split"]["notes"]) == 2


def test_a_rule_without_folds_is_wrong_usage(home):
    for name in ("rafdb", "celeba"):
        with pytest.raises(UsageError, match="--rule does not apply"):
            ferbench("protocol", "show", name, "--rule", "block")


def test_what_is_exported_is_what_is_shown_and_passes_the_audit(home):
    said = ferbench("protocol", "export", "ckplus", "--out", "folds.csv", "--rule", "random", "--seed", "5")
    shown = json.loads(ferbench("protocol", "show", "ckplus", "--rule", "random", "--seed", "5", "--format", "json"))
    assert shown["split"]["sha256"] in said
    audited = json.loads(ferbench("audit", "folds.csv", "--dataset", "ckplus", "--format", "json"))
    assert (audited["audit"]["leaks"], audited["audit"]["faults"]) == (0, 0)


def test_an_audit_that_finds_leaks_fails_after_printing_them(home):
    ids = load("ckplus", home / "data").samples["id"]
    (home / "leaky.csv").write_text("id,fold\n" + "".join(f"{name},{n % 2}\n" for n, name in enumerate(ids)))
    result = CliRunner().invoke(app, ["audit", "leaky.csv", "--dataset", "ckplus", "--format", "json"])
    assert isinstance(result.exception, CheckFailed)
    assert "must not be used: " in str(result.exception)
    found = json.loads(result.stdout)
    assert found["audit"]["leaks"] == len([f for f in found["findings"] if f["severity"] == "leak"]) > 0
