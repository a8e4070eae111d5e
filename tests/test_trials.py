"""Hyperparameter trials on held-out training subjects: the figures against a few lines of arithmetic."""

import json

import pytest
from support.command import ferbench
from support.runs import CLASSES, store_fold, store_stage

from ferbench.errors import DataError
from ferbench.report import trials
from ferbench.runs.store import Store

ROWS = [("S01", truth, truth) for truth in CLASSES]


def _train(store: Store, lr: float, seen: dict[str, tuple[float, int]], pretrain: str = "", **more) -> None:
    """A best-val training: by fold, the accuracy after its last epoch and the number of held-out images."""
    recipe = {"losses": {"eyes": 1.0}, "readings": {"border": "edge"}, "stage": {"epochs": 2, "lr": lr}}
    fields = {
        "recipe": recipe | more.pop("recipe", {}),
        "selection": "best-val",
        "parents": {"pretrain": pretrain} if pretrain else {},
    }
    notes = more.pop("notes", [])
    fields |= more
    for fold, (accuracy, images) in seen.items():
        told = {
            "validation_images": images,
            "notes": notes,
            "command": f"ferbench train wslgan{' --set x=1' if lr == 0.02 else ''}",
        }
        key = store_fold(store, fold, ROWS, facts=told, **fields)
        (store.folder(key) / "history.csv").write_text(f"epoch,validation_accuracy\n1,0.99\n2,{accuracy}\n")


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


def test_the_reference_is_in_the_middle_and_the_rest_is_compared_with_it(store):
    _train(store, 0.01, {"01": (0.5, 100), "02": (0.8, 50)})
    _train(store, 0.02, {"01": (0.6, 100), "02": (0.7, 50)})
    _train(store, 0.01, {"01": (0.7, 100), "02": (0.9, 50)}, recipe={"readings": {"border": "zero"}})
    (found,) = trials.build(store)
    first, second, third = found.rows
    assert (first.changed, first.difference, first.images, first.epochs) == ({}, None, 150, 2)
    assert first.accuracy == pytest.approx((50 + 40) / 150)  # after the last epoch, not the best
    assert second.changed == {"interpretation.border": ("edge", "zero")}
    assert (second.difference, second.std) == (pytest.approx(0.15), pytest.approx(0.05 * 2**0.5))
    assert (second.better, second.worse) == (2, 0)
    assert third.changed == {"finetune.lr": ("0.01", "0.02")}
    assert (third.difference, third.better, third.worse) == (pytest.approx(0), 1, 1)


def test_what_pretraining_changed_is_named_by_its_stage(store):
    keys = [
        store_stage(store, "pretrain", recipe={"readings": {"border": border}, "stage": {"epochs": epochs}})
        for border, epochs in (("edge", 3), ("zero", 3), ("edge", 9))
    ]
    _train(store, 0.01, {"01": (0.5, 10)}, keys[0])
    _train(store, 0.01, {"01": (0.6, 10)}, keys[1], recipe={"readings": {"border": "zero"}})
    _train(store, 0.01, {"01": (0.7, 10)}, keys[2])
    (found,) = trials.build(store)
    # Both stages' borders are one field.
    assert [row.changed for row in found.rows] == [
        {},
        {"pretrain.epochs": ("3", "9")},
        {"interpretation.border": ("edge", "zero")},
    ]


def test_what_was_prepared_in_another_way_is_compared_by_its_fingerprint(store):
    """The same people are held out, since the split is the same; what only one set's runs note is said of that one."""
    keys = [store_stage(store, "pretrain", data=one * 64) for one in "ab"]
    _train(store, 0.01, {"01": (0.5, 10)}, keys[0], data="c" * 64, notes=["of all"])
    _train(store, 0.01, {"01": (0.6, 10)}, keys[0], data="d" * 64, notes=["of all", "3 of 4 crops are aligned"])
    _train(store, 0.01, {"01": (0.7, 10)}, keys[1], data="d" * 64, notes=["of all", "3 of 4 crops are aligned"])
    (found,) = trials.build(store)
    assert [(row.changed, row.difference) for row in found.rows] == [
        ({}, None),
        ({"pretrain.data": ("a" * 12, "b" * 12)}, pytest.approx(0.1)),
        ({"finetune.data": ("d" * 12, "c" * 12)}, pytest.approx(-0.1)),
    ]
    assert trials.section(found).lines[-2:] == ["Note: of all", f"Note on {'d' * 12}: 3 of 4 crops are aligned"]


def test_what_the_reference_does_not_use_is_a_change_too(store):
    _train(store, 0.01, {"01": (0.5, 10)})
    _train(store, 0.01, {"01": (0.6, 10)}, recipe={"stage": {"epochs": 2, "lr": 0.01, "ema": 0.9}})
    _train(store, 0.02, {"01": (0.4, 10)})
    (found,) = trials.build(store)
    assert [row.changed for row in found.rows] == [
        {},
        {"finetune.ema": ("off", "0.9")},
        {"finetune.lr": ("0.01", "0.02")},
    ]


def test_trainings_of_other_folds_seeds_and_selections_are_not_mixed(store):
    seen = {"01": (0.5, 10)}
    _train(store, 0.01, seen)
    assert trials.build(store) == []
    _train(store, 0.02, seen, seed=1)
    _train(store, 0.02, seen, split="e" * 64)
    _train(store, 0.02, seen, selection="last")
    assert trials.build(store) == []
    _train(store, 0.02, {"01": (0.5, 10), "02": (0.5, 10)})
    (found,) = trials.build(store)
    assert [row.difference for row in found.rows] == [None, None]  # other folds: nothing to hold against
    assert trials.build(store, "oulu") == []


def test_the_command_prints_it_and_says_what_is_missing(store, tmp_path):
    told = ferbench("report", "--trials", cwd=tmp_path, code=3)
    assert "ferbench ablate --trial" in told.stderr
    _train(store, 0.01, {"01": (0.5, 100)})
    _train(store, 0.02, {"01": (0.25, 100)})
    text = ferbench("report", "--trials", "--format", "markdown", cwd=tmp_path).stdout
    assert "finetune.lr 0.01 → 0.02" in text
    assert "-25.00" in text
    (found,) = json.loads(ferbench("report", "--trials", "--format", "json", cwd=tmp_path).stdout)
    assert found["rows"][1]["changed"] == {"finetune.lr": ["0.01", "0.02"]}
    next(store.home.glob("*/history.csv")).write_text("epoch\n1\n")
    with pytest.raises(DataError, match="no validation accuracy"):
        trials.build(store)
