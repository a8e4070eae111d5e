"""``ferbench sweep``, ``status`` and ``retry``: what a file comes to, how far a command is, what is tried again."""

import json
import os
import time

import pytest
from support.command import ferbench

from ferbench.errors import DataError, FerbenchError, UsageError
from ferbench.execution.local import processes_that_fit
from ferbench.execution.options import Cluster, Compute, read_sweep
from ferbench.files import claim, is_claimed
from ferbench.runs.plans import Plan, Planned, status, stored, to_retry, under_way
from ferbench.runs.store import Store

SWEEP = """
methods = ["largest-class", "hog-svm"]
datasets = ["synth"]
seeds = 2

[options]
folds = "01-02"
"""


def plan(tmp_path, text: str):
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return path


def test_every_list_of_a_sweep_multiplies_its_trainings(tmp_path):
    found = read_sweep(
        plan(
            tmp_path,
            """
        methods = ["wslgan", "gfnet"]
        datasets = ["ckplus", "synth"]
        seeds = [3, 5]
        [options]
        preset = ["tiny", "light"]
        no-pretrain = true
        epochs = 4
        [set]
        "finetune.lr" = [0.1, 0.2, 0.3]
        "interpretation.mirror" = false
    """,
        )
    )
    assert len(found) == 2 * 2 * 2 * 2 * 3
    assert len({(one.method, one.dataset, one.seed, one.preset, one.overrides) for one in found}) == len(found)
    assert {one.overrides for one in found} == {
        (f"finetune.lr={lr}", "interpretation.mirror=false") for lr in (0.1, 0.2, 0.3)
    }
    assert {(one.pretrain, one.epochs, one.seed) for one in found} == {(False, 4, 3), (False, 4, 5)}
    assert found[0].command() == (
        "ferbench train wslgan --dataset ckplus --preset tiny --seed 3 --epochs 4 "
        "--no-pretrain --set finetune.lr=0.1 --set interpretation.mirror=false"
    )


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("datasets = ['synth']", DataError, "methods: Field required"),
        ("methods = []\ndatasets = ['synth']", DataError, "at least 1 item"),
        ("methods = ['wslgan']\ndatasets = ['synth']\nseeds = 0", UsageError, "without a seed"),
        ("methods = ['wslgan']\ndatasets = ['synth']\n[options]\ndevice = 'cpu'", UsageError, "no option device"),
        (
            "methods = ['wslgan']\ndatasets = ['synth']\n[options]\nepochs = '3'",
            DataError,
            "epochs of a sweep is a int",
        ),
        ("methods = ['wslgan']\ndatasets = ['synth']\nseeds = 1_000_000_000", UsageError, "1,000,000,000 trainings"),
        ("methods = ['wslgan']\ndatasets = ['synth']\n[set]\na = []", UsageError, "0 trainings"),
        ("methods = ['wslgan'", DataError, "not valid TOML"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_in_one_line(tmp_path, text, error, said):
    with pytest.raises(error, match=said) as refused:
        read_sweep(plan(tmp_path, text))
    assert "\n" not in str(refused.value)


def test_options_of_a_cluster_that_do_not_go_together_are_refused():
    assert Compute().cluster() is None
    ray = Compute(executor="ray", address="auto", jobs="3", threads=2, gpus_per_job=0.25)
    assert ray.cluster() == Cluster("auto", 3, 2, 0.25)
    for compute, message in (
        (Compute(executor="slurm"), "unknown executor 'slurm'"),
        (Compute(address="auto"), "take --executor ray"),
        (Compute(gpus_per_job=0.5), "take --executor ray"),
        (Compute(executor="ray", jobs="some"), "--jobs takes a number"),
    ):
        with pytest.raises(UsageError, match=message):
            compute.cluster()


def test_as_many_processes_are_started_as_the_memory_has_room_for(monkeypatch):
    peak = 1 << 30
    monkeypatch.setattr("resource.getrusage", lambda who: type("Usage", (), {"ru_maxrss": peak // 1024}))
    monkeypatch.setattr("sys.platform", "linux")
    for available, processes in ((peak - 1, 0), (peak * 3 + 5, 3)):
        monkeypatch.setattr("ferbench.execution.local.memory_available", lambda available=available: available)
        assert processes_that_fit() == processes
    monkeypatch.setattr("ferbench.execution.local.memory_available", lambda: None)
    assert processes_that_fit() > 1000


@pytest.mark.slow
def test_a_sweep_makes_what_single_commands_make_and_its_standing_is_told(tmp_path):
    path = plan(tmp_path, SWEEP)
    said = ferbench("sweep", str(path), "--jobs", "2", cwd=tmp_path).stdout
    assert "seed 0–1" in said
    assert "see: ferbench report --dataset synth" in said
    before = {file: file.read_bytes() for file in (tmp_path / "runs").glob("*/record.json")}
    assert len(before) == 2 * 2 * 2
    (row,) = json.loads(ferbench("status", "--format", "json", cwd=tmp_path).stdout)
    assert (row["done"], row["running"], row["failed"], row["waiting"], row["alive"]) == (8, 0, 0, 0, False)
    assert row["command"] == ["sweep", str(path), "--jobs", "2"]
    assert "ended: 8 done of 8" in ferbench("status", "--watch", cwd=tmp_path).stdout
    alone = ferbench("train", "hog-svm", "--dataset", "synth", "--folds", "01-02", "--seed", "1", cwd=tmp_path).stdout
    assert alone.count("reused") >= 2
    assert {file: file.read_bytes() for file in before} == before
    assert "nothing to try again" in ferbench("retry", cwd=tmp_path).stdout


BROKEN = '''
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Moody(ClassifierMixin, BaseEstimator):
    """Fails for as long as a file is there."""

    def fit(self, images, labels):
        if Path("broken").exists():
            raise RuntimeError("the moon is full")
        self.classes_ = np.unique(labels)
        return self

    def predict_proba(self, images):
        return np.full((len(images), len(self.classes_)), 1 / len(self.classes_))


moody = Moody()
'''
CARD = """
family = "foreign"
name = "moody"
title = "Moody"
[model]
source = "moods:moody"
kind = "estimator"
[input]
layout = "flat"
[output]
labels = []
gives = "probabilities"
[trained]
on = []
[preset.own]
"""


@pytest.mark.slow
def test_what_failed_is_told_and_tried_again(tmp_path):
    (tmp_path / "moods.py").write_text(BROKEN)
    (tmp_path / "moody.toml").write_text(CARD)
    (tmp_path / "broken").touch()
    told = ferbench("evaluate", "moody.toml", "--dataset", "synth", "--refit", cwd=tmp_path, code=4).stderr
    assert "5 of 5 jobs failed" in told
    (row,) = json.loads(ferbench("status", "--format", "json", cwd=tmp_path).stdout)
    assert row["failed"] == 5
    assert set(row["failed_jobs"].values()) == {"RuntimeError: the moon is full"}
    (tmp_path / "broken").unlink()
    assert "ferbench evaluate moody.toml" in ferbench("retry", row["id"][:4], cwd=tmp_path).stdout
    (row,) = json.loads(ferbench("status", "--format", "json", cwd=tmp_path).stdout)
    assert (row["done"], row["failed"]) == (5, 0)


def made(command: list[str], keys: str = "ab", seconds: float = 10.0, at_once: int = 2) -> Plan:
    jobs = [Planned(key=key * 16, title=f"job {key}", kind="fold", seconds=seconds) for key in keys]
    return Plan(command=command, started=1.0, at_once=at_once, jobs=jobs)


def test_a_command_is_under_way_for_as_long_as_its_process_is(tmp_path):
    store = Store(tmp_path)
    one = made(["train", "wslgan"])
    with under_way(tmp_path, one):
        with claim(store.folder("a" * 16)) as mine:
            assert mine
            found = status(one, store)
            begun = store.folder("a" * 16) / "identity.json"
            begun.write_text("{}")
            os.utime(begun, (time.time() - 4,) * 2)
            assert status(one, store).seconds_left == pytest.approx((6 + 10) / 2, abs=0.2)
            os.utime(begun, (time.time() - 60,) * 2)
            assert status(one, store).seconds_left == pytest.approx(10 / 2, abs=0.2)  # late: it owes nothing
        assert found.alive
        assert found.running == ["job a"]
        assert found.counts == {"done": 0, "running": 1, "failed": 0, "waiting": 1}
        assert found.seconds_left == 20 / 2
    assert not status(one, store).alive
    assert [found.model_copy(update={"digest": ""}) for found in stored(tmp_path)] == [one]
    assert not is_claimed(store.folder("a" * 16))
    assert status(made([], seconds=0.0), store).seconds_left is None  # nothing tells


def test_nothing_but_what_trains_is_ever_tried_again(tmp_path):
    store = Store(tmp_path)
    for number, command in enumerate((["train", "wslgan"], ["report", "--out", "/etc/passwd"])):
        with under_way(tmp_path, made(command)):
            pass
        assert to_retry(stored(tmp_path)[number:], store) == []  # nothing failed
    with pytest.raises(UsageError, match="0 commands begin with"):
        to_retry(stored(tmp_path), store, "zz")
    with pytest.raises(FerbenchError):
        to_retry([], store, "a")
