"""The command line through its real entry point."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from support.command import SMALL, ferbench
from support.sources import lay, png

from ferbench.execution.local import execute, worker_threads
from ferbench.execution.options import Compute, TrainOptions
from ferbench.execution.run_job import run_job
from ferbench.execution.training import prepare_training

TRAIN = ["train", "wslgan", "--dataset", "synth", *SMALL]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """One small training through both stages and all five folds, shared by the tests that look at it."""
    folder = tmp_path_factory.mktemp("trained")
    ferbench(*TRAIN, cwd=folder)
    return folder


@pytest.mark.slow
def test_training_goes_through_both_stages_and_every_fold(trained):
    rows = json.loads(ferbench("runs", "--format", "json", cwd=trained).stdout)
    assert [row["kind"] for row in rows].count("fold") == 5
    assert {row["kind"] for row in rows} == {"attention", "pretrain", "fold"}
    assert all(row["state"] == "done" for row in rows)
    for row in rows:
        folder = trained / "runs" / row["key"]
        names = {path.name for path in folder.iterdir()}
        assert {"record.json", "identity.json", "weights.safetensors", "history.csv"} <= names
        assert "checkpoint" not in names


@pytest.mark.slow
def test_the_report_counts_every_image_once(trained):
    (report,) = json.loads(ferbench("report", "--format", "json", cwd=trained).stdout)
    (training,) = report["trainings"]
    assert training["images"] == 600
    assert sum(map(sum, training["matrix"])) == 600
    assert training["subjects"] == 40
    assert report["missing_folds"] == []
    assert {stage["kind"] for stage in report["stages"]} == {"attention", "pretrain"}
    markdown = ferbench("report", "--dataset", "synth", "--format", "markdown", cwd=trained).stdout
    assert f"{100 * training['accuracy']:.2f}" in markdown
    assert "WS-LGAN" in ferbench("report", cwd=trained).stdout


@pytest.mark.slow
def test_the_same_command_again_reuses_everything(trained):
    before = {path: path.stat().st_mtime_ns for path in (trained / "runs").rglob("record.json")}
    out = ferbench(*TRAIN, cwd=trained).stdout
    assert out.count("reused") >= 7
    assert {path: path.stat().st_mtime_ns for path in (trained / "runs").rglob("record.json")} == before


@pytest.mark.slow
def test_interrupted_training_goes_on_to_the_same_bytes(trained, tmp_path):
    env = {
        **os.environ,
        "FERBENCH_DATA": str(trained / "data"),
        "FERBENCH_RUNS": str(tmp_path / "runs"),
        "OMP_NUM_THREADS": "1",
    }
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-m", "ferbench", *TRAIN],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A shell starts background jobs deaf to Ctrl-C, and their children inherit it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        known = len(list((tmp_path / "runs").glob("*/checkpoint/*")) + list((tmp_path / "runs").glob("*/record.json")))
        while process.poll() is None:
            files = list((tmp_path / "runs").glob("*/checkpoint/*")) + list((tmp_path / "runs").glob("*/record.json"))
            if len(files) > known:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=600)
        assert process.returncode == 130, stderr
        assert b"the same command goes on" in stderr
    done = subprocess.run([sys.executable, "-m", "ferbench", *TRAIN], env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    keys = sorted(path.parent.name for path in (trained / "runs").glob("*/record.json"))
    assert keys == sorted(path.parent.name for path in (tmp_path / "runs").glob("*/record.json"))
    for key in keys:
        for name in ("weights.safetensors", "history.csv", "predictions.csv"):
            a, b = trained / "runs" / key / name, tmp_path / "runs" / key / name
            assert a.exists() == b.exists()
            assert not a.exists() or a.read_bytes() == b.read_bytes(), f"{key}/{name}"


@pytest.mark.slow
def test_folds_side_by_side_give_the_bytes_of_folds_in_a_row(trained, tmp_path):
    shutil.copytree(trained / "data", tmp_path / "data")
    folds = []
    for row in json.loads(ferbench("runs", "--format", "json", cwd=trained).stdout):
        if row["kind"] == "fold":
            folds.append(row["key"])
        else:
            shutil.copytree(trained / "runs" / row["key"], tmp_path / "runs" / row["key"])
    words = [word if word != "1" or TRAIN[place - 1] != "--threads" else "2" for place, word in enumerate(TRAIN)]
    out = ferbench(*words, "--jobs", "2", cwd=tmp_path).stdout
    assert "2 folds at a time" in out
    assert out.count("done") == 5
    for key in folds:
        record = json.loads((tmp_path / "runs" / key / "record.json").read_text())
        assert record["environment"]["threads"] == 1
        for name in ("weights.safetensors", "history.csv", "predictions.csv"):
            assert (tmp_path / "runs" / key / name).read_bytes() == (trained / "runs" / key / name).read_bytes()


@pytest.mark.slow
def test_a_terminated_training_leaves_nobody_at_work(trained, tmp_path):
    runs = tmp_path / "runs"
    for row in json.loads(ferbench("runs", "--format", "json", cwd=trained).stdout):
        if row["kind"] != "fold":
            shutil.copytree(trained / "runs" / row["key"], runs / row["key"])
    others = set(runs.iterdir())
    env = {**os.environ, "FERBENCH_DATA": str(trained / "data"), "FERBENCH_RUNS": str(runs), "OMP_NUM_THREADS": "2"}
    words = [*TRAIN, "--epochs", "500", "--threads", "2", "--jobs", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ferbench", *words],
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )

    def at_work() -> list[Path]:
        held = []
        for folder in {path.parent for path in runs.glob("*/.lock")} - others:
            with (folder / ".lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    held.append(folder)
        return held

    try:
        while len(at_work()) < 2 and process.poll() is None:
            time.sleep(0.1)
        assert len(at_work()) == 2
        process.terminate()
        _, stderr = process.communicate(timeout=600)
        assert process.returncode == 130
        assert b"the same command goes on" in stderr
        assert at_work() == []
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_folds_in_threads_give_the_bytes_of_folds_in_a_row(trained, tmp_path):
    """How folds share a GPU, here on the CPU: each thread takes the next fold that no other has."""
    overrides = tuple(SMALL[place + 1] for place, word in enumerate(SMALL) if word == "--set")
    options = TrainOptions("wslgan", "synth", epochs=1, overrides=overrides, compute=Compute(threads=1, jobs="1"))
    runs, data = tmp_path / "runs", trained / "data"
    for row in json.loads(ferbench("runs", "--format", "json", cwd=trained).stdout):
        if row["kind"] != "fold":
            shutil.copytree(trained / "runs" / row["key"], runs / row["key"])
    session = prepare_training([options], runs, data)
    makers = set()
    together = threading.Barrier(3)  # folds are short: two threads could make all of them while the third looks again

    def work(report) -> None:
        torch.set_num_threads(1)  # OpenMP keeps the number for each thread separately, and it decides the last bits

        def make(job):
            if threading.get_ident() not in makers:
                makers.add(threading.get_ident())
                together.wait(timeout=60)
            return run_job(job, session.store, session.schedule.device, report)

        for _ in execute(session.jobs, session.store, make):
            pass

    with worker_threads(2, "cpu", work):
        work(lambda *_: None)
    assert len(makers) == 3
    for job in session.jobs:
        for name in ("weights.safetensors", "history.csv", "predictions.csv"):
            a, b = trained / "runs" / job.key / name, runs / job.key / name
            assert a.exists() == b.exists()
            assert not a.exists() or a.read_bytes() == b.read_bytes(), f"{job.title}: {name}"


@pytest.mark.slow
def test_a_given_amg_is_used_and_gfnet_needs_none(trained):
    amg = next(
        row["key"]
        for row in json.loads(ferbench("runs", "--format", "json", cwd=trained).stdout)
        if row["kind"] == "attention"
    )
    out = ferbench(
        *TRAIN, "--amg", amg[:6], "--no-pretrain", "--folds", "2", "--selection", "best-val", cwd=trained
    ).stdout
    assert "stage 1" not in out
    assert "fold 02" in out
    out = ferbench("train", "gfnet", *TRAIN[2:], "--dry-run", cwd=trained).stdout
    assert "stage 1" not in out
    other = ferbench(*TRAIN, "--set", "architecture.growth=8", "--amg", amg, cwd=trained, code=2).stderr
    assert "has another shape" in other
    (report,) = json.loads(ferbench("report", "--format", "json", cwd=trained).stdout)
    partial = next(t for t in report["trainings"] if t["selection"] == "best-val")
    assert len(partial["folds"]) == 1
    assert len([fold for fold in report["missing_folds"] if fold["experiment"] == partial["experiment"]]) == 4


def test_data_verbs_from_disk_to_verified(tmp_path):
    files = {
        f"CK+48/{c}/S01{i}_00{j}_0000000{f}.png": png(i * 100 + j * 10 + f)
        for j, c in enumerate(["anger", "fear"])
        for i in range(10)
        for f in range(3)
    }
    lay(tmp_path / "raw", files)
    refused = ferbench("data", "prepare", "ckplus", "raw", cwd=tmp_path, code=3).stderr
    assert "has no image of contempt, disgust" in refused
    done = ferbench("data", "prepare", "ckplus", "raw", "--incomplete", cwd=tmp_path)
    assert "60 images, 10 subjects, 20 sequences" in done.stdout
    assert "ckplus" in ferbench("data", "list", cwd=tmp_path).stdout
    shown = json.loads(
        ferbench("data", "show", "ckplus", "--format", "json", "--sheet", "sheet.png", cwd=tmp_path).stdout
    )
    assert shown["images by class"]["anger"] == "30 of 135 expected"
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    ferbench("data", "verify", "ckplus", cwd=tmp_path)
    assert "0 subjects shared" in ferbench("protocol", "show", "ckplus", cwd=tmp_path).stdout
    ferbench("protocol", "export", "ckplus", "--out", "folds.csv", cwd=tmp_path)
    ferbench("audit", "folds.csv", "--dataset", "ckplus", cwd=tmp_path)
    leaky = ["id,fold"] + [f"{Path(path).stem},{n % 3}" for n, path in enumerate(files)]
    (tmp_path / "leaky.csv").write_text("\n".join(leaky))
    assert "must not be used" in ferbench("audit", "leaky.csv", "--dataset", "ckplus", cwd=tmp_path, code=1).stderr
    images = tmp_path / "data/ckplus/images.npy"
    images.write_bytes(images.read_bytes()[:-1] + b"\0")
    assert "is damaged" in ferbench("data", "verify", "ckplus", cwd=tmp_path, code=3).stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["train", "wslgan", "--dataset", "ckplus"], 3, "ferbench data prepare ckplus SOURCE"),
        (["train", "wslgan", "--dataset", "ckpluss"], 2, "did you mean ckplus"),
        (["train", "wslgen", "--dataset", "synth"], 2, "did you mean wslgan"),
        (["train", "wslgan"], 2, "--dataset"),
        (["data", "prepare", "ckplus", "nowhere.zip"], 3, "does not exist"),
        (["data", "prepare", "ckplus"], 2, "say where ckplus is"),
        (["data", "show", "ckplus"], 3, "data prepare ckplus"),
        (["report", "--dataset", "oulu"], 3, "ferbench train wslgan --dataset oulu"),
        (["audit", "none.csv", "--dataset", "synth"], 3, "does not exist"),
        (["show", "wslgan", "--preset", "vast"], 2, "no preset"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(tmp_path, words, code, says):
    error = ferbench(*words, cwd=tmp_path, code=code).stderr
    assert says in error
    assert "Traceback" not in error
    if code != 2:
        assert error.count("\n") == 1


def test_show_prints_sizes_and_the_recipe(tmp_path):
    shown = json.loads(ferbench("show", "wslgan", "--dataset", "oulu", "--format", "json", cwd=tmp_path).stdout)
    (sizes, shapes), recipe = list(shown.values())[:2], shown["recipe: losses"]
    assert int(sizes["network parameters"].replace(",", "")) > 1_000_000
    assert (sizes["network FLOPs per image"], sizes["amg FLOPs per image"]) == ("2.297 G", "7.376 G")
    assert shapes["F_global"] == "352×12×12"
    assert recipe["whole"] == 5.0
    assert "wslgan-sum" in ferbench("show", cwd=tmp_path).stdout
    assert json.loads(ferbench("env", "--format", "json", cwd=tmp_path).stdout)["environment"]["ferbench"]
    assert ferbench("--version", cwd=tmp_path).stdout.startswith("ferbench 0.")
