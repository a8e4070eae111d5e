"""What ``ferbench ablate`` plans and trains: one plan, the keys of ``train``, leakage from one training."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from support.command import SMALL, ferbench
from support.datasets import lay_down, make_faces, people

from ferbench.cli.progress import print_plan
from ferbench.errors import UsageError
from ferbench.execution.options import Compute, TrainOptions
from ferbench.execution.session import Session
from ferbench.execution.training import prepare_ablation, prepare_training
from ferbench.execution.worker import jobs_from_json, write_plan
from ferbench.labels import EMOTIONS
from ferbench.methods.wslgan import cost as measured
from ferbench.protocol import leakage, rules, splits
from ferbench.protocol import protocol as protocols
from ferbench.protocol.leakage import audit
from ferbench.training.plan import passes
from ferbench.training.samples import Shared

LABELS = ["anger", "fear", "happiness"]
TINY = (
    "architecture.growth=4",
    "architecture.generator_layers=[1,1,1]",
    "architecture.extractor_layers=[1,1,1]",
    "architecture.reduction=4",
    "attention.epochs=1",
    "attention.batch=8",
    "pretrain.epochs=1",
    "finetune.epochs=3",
    "finetune.lr=0.05",
    "finetune.batch=8",
)
PROTOCOL = """
name = "pair"
version = 1
description = "two folds of drawn noise"
source = "a test"
dataset = "target"
classes = ["anger", "fear", "happiness"]
frames = "last3"
preset = "tiny"
attributes = "celeba"
pretrain = "fer2013"

[folds]
rule = "step"
count = 2
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A data home with a target set of two folds and small sets for both stages before it."""
    attributes = protocols.load_attributes("celeba").parts
    names = [*attributes.eyes, *attributes.mouth]
    marked = [{"split": "train" if n < 24 else "val", **{name: int(n % 2) for name in names}} for n in range(32)]
    wild = [{"label": EMOTIONS[n % 7], "split": "train" if n < 21 else "val"} for n in range(28)]
    lay_down(make_faces(people(6, LABELS), name="target"), tmp_path / "data")
    lay_down(make_faces(marked, name="celeba"), tmp_path / "data")
    lay_down(make_faces(wild, name="fer2013"), tmp_path / "data")
    (tmp_path / "pair.toml").write_text(PROTOCOL)
    return tmp_path


@pytest.fixture(autouse=True)
def _no_stopwatch(monkeypatch):
    """Plans are told without a measured step: here nobody waits for their end."""
    monkeypatch.setattr(measured, "_measured", lambda *_: 0.001)


def options(place: Path, **more) -> TrainOptions:
    compute = Compute(device="cpu", precision="fp32", engine=more.pop("engine", "plain"), jobs="1")
    fields = {"method": "wslgan", "overrides": TINY, "compute": compute}
    return TrainOptions(dataset=str(place / "pair.toml"), **{**fields, **more})


def ablation(place: Path, variants: str = "", seeds: int = 1, trials: tuple[str, ...] = (), **more) -> Session:
    places = {"runs": place / "runs", "home": place / "data"}
    return prepare_ablation(options(place, **more), variants, seeds, trials, **places)


def run(session: Session) -> None:
    session.run(["ablate"], lambda job: lambda done, total, text: None)


def test_one_plan_holds_every_job_of_train_once_and_under_the_same_key(place):
    session = ablation(place, "gfnet,wslgan-wcl", seeds=2)
    kinds = [job.kind for job in session.jobs]
    # Each seed has one set of attention maps for all; pre-training and folds are of each method and seed.
    assert kinds == ["attention"] * 2 + ["pretrain"] * 6 + ["fold"] * 12
    assert len({job.key for job in session.jobs}) == 20
    alone = set()
    for method in ("wslgan", "gfnet", "wslgan-wcl"):
        for seed in (0, 1):
            one = options(place, method=method, seed=seed)
            planned = prepare_training([one], place / "runs", place / "data")
            alone |= {job.key for job in planned.jobs}
            (request,) = planned.graph.requests
            assert request.command in {other.command for other in session.graph.requests}
    assert alone == {job.key for job in session.jobs}
    assert len({job.splits.hash for job in session.jobs if job.splits}) == 1
    assert len({session.title(job) for job in session.jobs}) == 20


def test_methods_that_look_at_the_same_maps_pay_for_them_once(place, monkeypatch):
    monkeypatch.setattr(measured, "_measured", lambda name, *_: 1.0 if name == "maps" else 0.001)
    session = ablation(place, "wslgan-sum,gfnet", engine="fast")
    seconds = {session.title(job): session.seconds[job.key] for job in session.jobs if job.kind == "pretrain"}
    whole, fewer, none = seconds.values()
    assert fewer == none < 1
    assert whole == pytest.approx(18 + fewer)  # a second for the map of each image of FER2013's seven classes


def test_a_plan_says_how_long_maps_take_before_the_first_step(place, monkeypatch, capsys):
    monkeypatch.setattr(measured, "_measured", lambda name, *_: 10.0 if name == "maps" else 0.001)
    session = prepare_training([options(place, engine="fast", folds="01")], place / "runs", place / "data")
    print_plan(session, Console(width=200))
    printed = capsys.readouterr().out
    assert "before the first step of stage 2: pre-training on fer2013: attention maps, about 3 min 00 s" in printed


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="compiled steps need a C++ compiler")
def test_a_plan_says_from_how_many_folds_on_compiling_pays(place, monkeypatch, capsys):
    session = prepare_training([options(place, engine="compiled")], place / "runs", place / "data")
    folds = [job.key for job in session.jobs if job.kind == "fold"]
    session.seconds.update(dict.fromkeys(folds, 100.0))
    print_plan(session, Console(width=200))
    printed = capsys.readouterr().out  # 122 s of compilation, and 26 s saved in each fold
    assert (
        "compiling takes about 2 min 02 s more where its code is not on disk yet, and pays from 5 folds on" in printed
    )


@pytest.mark.parametrize(("epochs", "folds", "shared"), [(14, "", True), (13, "", False), (14, "01", False)])
def test_folds_share_one_table_of_maps_where_they_look_at_most_of_it(place, epochs, folds, shared):
    one = options(place, engine="fast", folds=folds, epochs=epochs)
    jobs = prepare_training([one], place / "runs", place / "data").jobs
    # Each of the two folds trains on half of the images, of which the table holds 14 samples each.
    found = set()
    for job in jobs:
        if job.kind == "fold":
            stage = job.method.recipe.stage("fold", bool(job.request.protocol.pretrain))
            tables = Shared(job.faces.images, job.split.train, place, job.folds)
            found.add(tables.pays(passes(stage, job.training_images)))
    assert found == {shared}


def test_wslgan_is_always_there_and_all_variants_are_by_default(place):
    assert ablation(place, "gfnet").methods == ["WS-LGAN", "GFNet"]
    assert len(ablation(place).methods) == 6


def test_worker_processes_get_the_same_jobs(place, tmp_path):
    """From a JSON file, in which a process finds all that its jobs need: nothing is planned again."""
    session = ablation(place, seeds=2, leakage=True)
    file = write_plan(tmp_path / "jobs.json", session.jobs, session.store, session.home, session.schedule.device, 3)
    content = json.loads(file.read_text())
    assert (content["threads"], content["device"]) == (3, {"name": "cpu", "precision": "fp32", "engine": "plain"})
    faces = {job.faces.name: job.faces for job in session.jobs}
    for before, after in zip(session.jobs, jobs_from_json(content["plan"], faces.get), strict=True):
        assert (after.key, after.identity, after.faces) == (before.key, before.identity, before.faces)
        assert (after.request, after.source) == (before.request, before.source)
        assert type(after.method.recipe) is type(before.method.recipe)
        if before.splits:
            assert replace(after.splits, folds=()) == replace(before.splits, folds=())
            assert np.array_equal(after.split.train, before.split.train)
            assert np.array_equal(after.split.test, before.split.test)
    (one,) = jobs_from_json(content["plan"], faces.get, {session.jobs[-1].key})
    assert one.key == session.jobs[-1].key


def test_leakage_is_planned_from_two_trainings(place):
    session = ablation(place, leakage=True)
    folds = [
        (job.identity.protocol, job.identity.selection, job.identity.fold) for job in session.jobs if job.kind == "fold"
    ]
    # A best-test run follows its training at once, so that one training's epochs are on the disk at a time.
    assert folds == [
        (protocol, selection, fold)
        for protocol in ("pair@1", "pair@1+image-folds")
        for fold in ("01", "02")
        for selection in ("last", "best-test")
    ]
    one = options(place)
    plain = prepare_training([one], place / "runs", place / "data")
    assert {job.key for job in plain.jobs} < {job.key for job in session.jobs}
    assert all(job.request.keep_epochs != bool(job.epochs_run) for job in session.jobs if job.kind == "fold")


@pytest.mark.parametrize("more", [{"folds": "01"}, {"rule": "block"}, {"selection": "best-val"}])
def test_leakage_takes_all_folds_and_the_last_epoch(place, more):
    with pytest.raises(UsageError, match="--leakage takes the protocol's own folds"):
        ablation(place, leakage=True, **more)


def test_trials_are_planned_one_at_a_time_on_held_out_subjects(place):
    tried = ("finetune.lr=0.01", "interpretation.border=zero")
    session = ablation(place, trials=tried)
    folds = [job for job in session.jobs if job.kind == "fold"]
    assert {job.identity.selection for job in folds} == {"best-val"}
    schedules = [(j.identity.recipe["stage"]["lr"], j.identity.recipe["readings"]["border"]) for j in folds]
    assert schedules == [(0.05, "edge")] * 2 + [(0.01, "edge")] * 2 + [(0.05, "zero")] * 2
    # What the rate of fine-tuning leaves as it is, is made once.
    assert [job.kind for job in session.jobs if job.kind != "fold"] == ["attention"] * 2 + ["pretrain"] * 2
    assert len({session.title(job) for job in session.jobs}) == len(session.jobs)


@pytest.mark.parametrize(("variants", "leakage"), [("gfnet", False), ("", True)])
def test_trials_are_tried_alone(place, variants, leakage):
    with pytest.raises(UsageError, match="leave out the others"):
        ablation(place, variants, trials=("a=1",), leakage=leakage)


def test_a_reading_that_changes_nothing_is_refused(place):
    with pytest.raises(UsageError, match="finetune.lr=0.05 changes nothing"):
        ablation(place, trials=("finetune.lr=0.05",))


def test_leakage_cannot_be_reached_through_a_training(place):
    one = options(place, selection="best-test")
    with pytest.raises(UsageError, match="unknown selection 'best-test'"):
        prepare_training([one], place / "runs", place / "data")
    for rule in ("image", "images", "image-folds"):
        one = options(place, rule=rule)
        with pytest.raises(UsageError, match="unknown fold rule"):
            prepare_training([one], place / "runs", place / "data")


@pytest.mark.slow
def test_best_test_is_made_of_the_epochs_of_the_one_training(place):
    session = ablation(place, leakage=True)
    run(session)
    store, alone = session.store, options(place)
    plain = prepare_training([alone], place / "alone", place / "data")
    run(plain)
    for job in session.jobs:
        folder = store.folder(job.key)
        assert not (folder / "epochs").exists()
        if job.key in {other.key for other in plain.jobs}:  # keeping epochs changes no byte
            weights = plain.store.folder(job.key) / "weights.safetensors"
            assert (folder / "weights.safetensors").read_bytes() == weights.read_bytes()
        if job.epochs_run:
            record, history = store.record(job.key), pd.read_csv(folder / "history.csv")
            last = store.record(job.epochs_run)
            assert not (folder / "weights.safetensors").exists()
            assert len(history) == 3
            assert record.result["epoch"] == 1 + int(np.argmax(history["test_accuracy"]))
            assert record.result["accuracy"] == pytest.approx(history["test_accuracy"].max())
            assert last.result["accuracy"] == pytest.approx(history["test_accuracy"].iloc[-1])
            assert record.identity.leaks
            assert "--leakage" in record.facts["command"]


@pytest.mark.slow
def test_a_finished_training_without_its_epochs_is_trained_again_to_the_same_predictions(place):
    session = ablation(place, leakage=True)
    run(session)
    job = next(job for job in session.jobs if job.epochs_run)
    folder = session.store.folder(job.key)
    before = {name: (folder / name).read_bytes() for name in ("predictions.csv", "history.csv")}
    (folder / "record.json").unlink()
    again = ablation(place, leakage=True)
    assert [one.key for one in again.jobs if again.states[one.key] != "done"] == [job.key]
    assert again.seconds[job.key] > 0
    run(again)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert not (folder / "epochs").exists()


def test_image_folds_test_everything_once_and_put_people_in_training_and_test_set(tmp_path):
    faces, protocol = make_faces(people(20, LABELS), name="ckplus"), protocols.load("ckplus")
    made = leakage.image_folds(protocol, faces)
    assert made.protocol == "ckplus@1+image-folds"
    assert "subjects are in training and test sets" in made.rule
    assert sorted(np.concatenate([fold.test for fold in made.folds])) == list(range(len(faces)))
    assert all(not np.intersect1d(fold.train, fold.test).size for fold in made.folds)
    assert made.hash == leakage.image_folds(protocol, faces).hash != splits.make(protocol, faces).hash
    with pytest.raises(Exception, match="subjects in training and test set"):
        rules.check_subjects(made.folds, faces)
    path = tmp_path / "folds.csv"
    path.write_text(splits.to_csv(made.folds, faces))
    leaks = [finding for finding in audit(path, faces) if finding.severity == "leak"]
    assert {finding.fold for finding in leaks} == {fold.fold for fold in made.folds}
    assert {finding.what for finding in leaks} == {"subjects in training and test set"}
    with pytest.raises(Exception, match="subjects in training and test set"):
        splits.make(protocol, faces, "file", folds_file=path)


def test_no_protocol_file_asks_for_image_folds(place):
    for rule in ("image", "images", "image-folds"):
        (place / "leaky.toml").write_text(PROTOCOL.replace('"step"', f'"{rule}"'))
        with pytest.raises(Exception, match=r"folds\.rule"):
            protocols.load(str(place / "leaky.toml"))


def test_an_official_split_has_no_image_folds():
    with pytest.raises(UsageError, match="official split"):
        leakage.image_folds(protocols.load("rafdb"), make_faces([{"label": "anger", "split": "train"}]))


@pytest.mark.slow
def test_readings_from_nothing_to_their_table(tmp_path):
    words = ["ablate", "--dataset", "synth", "--no-pretrain", "--folds", "01,02", "--trial", "finetune.lr=0.001"]
    done = ferbench(*words, *SMALL, "--format", "json", cwd=tmp_path)
    assert done.stderr.count("done") == 5  # stage 1, and two folds of each of the two
    assert "test images" not in done.stderr
    (found,) = json.loads(done.stdout)
    first, second = found["rows"]
    assert (first["changed"], first["folds"], second["folds"]) == ({}, 2, 2)
    text = ferbench("report", "--trials", "--format", "markdown", cwd=tmp_path).stdout
    assert second["experiment"] in text
    assert f"{100 * second['difference']:+.2f} ±" in text


@pytest.mark.slow
def test_ablate_from_nothing_to_its_tables(tmp_path):
    words = ["ablate", "--dataset", "synth", "--variants", "gfnet", *SMALL]
    done = ferbench(*words, "--format", "markdown", "--out", "reports/ablation.md", cwd=tmp_path)
    assert done.stdout == ""
    text = (tmp_path / "reports/ablation.md").read_text()
    assert "Features, as Table 8" in text
    assert "Variants minus WS-LGAN" in text
    again = ferbench(*words, "--format", "json", cwd=tmp_path)
    assert again.stderr.count("reused") >= 13
    assert [v["images"] for v in json.loads(again.stdout)["ablations"][0]["variants"]] == [600, 600]
    assert ferbench("report", "--ablation", "--format", "markdown", cwd=tmp_path).stdout == text
    ferbench("protocol", "export", "synth", "--image-folds", "--out", "leaky.csv", cwd=tmp_path)
    assert "must not be used" in ferbench("audit", "leaky.csv", "--dataset", "synth", cwd=tmp_path, code=1).stderr
    rows = json.loads(ferbench("runs", "--format", "json", cwd=tmp_path).stdout)
    broken = tmp_path / "runs" / next(row["key"] for row in rows if (row["method"], row["fold"]) == ("gfnet", "02"))
    (broken / "record.json").unlink()
    (broken / "checkpoint").write_text("in the way of a folder")
    failed = ferbench(*words, cwd=tmp_path, code=4)
    assert "1 of 13 jobs failed" in failed.stderr
    assert "GFNet    none: no seed with the same folds done" in failed.stdout
