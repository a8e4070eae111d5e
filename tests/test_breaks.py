"""What would have to turn CI red does: code is broken on purpose, and ``ferbench check`` says so."""

import json
import re
from pathlib import Path

import pytest
import torch
from support.command import ferbench

from ferbench.data import synthetic
from ferbench.errors import CheckFailed
from ferbench.execution import views
from ferbench.inference import evaluate
from ferbench.methods.wslgan.network import AttentionMapGenerator, SelectiveFeatureUnit
from ferbench.report.check import accept_runs, check_runs

TRAIN = [
    "train",
    "gfnet",
    "--dataset",
    "synth",
    "--preset",
    "tiny",
    "--no-pretrain",
    "--folds",
    "01",
    "--epochs",
    "16",
    "--threads",
    "1",
]
ROOT = Path(__file__).resolve().parent.parent
ACCEPTED = ROOT / "baselines" / "accepted" / "synth-gfnet-tiny.json"


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    home = tmp_path_factory.mktemp("faces")
    synthetic.ensure("synth", home)
    return home


@pytest.fixture(scope="module")
def accepted(faces, tmp_path_factory):
    """The shipped network's predictions of drawn faces, accepted."""
    folder = tmp_path_factory.mktemp("accepted")
    evaluate.evaluate("", "tiny", "synth", folder / "runs", faces)
    accept_runs([folder / "b.json"], "as it is", folder / "runs")
    return folder / "b.json"


def evaluated_again(accepted, faces, runs) -> None:
    torch.set_num_threads(1)
    evaluate.evaluate("", "tiny", "synth", runs, faces)
    check_runs([accepted], "auto", "console", runs)


@pytest.mark.slow
def test_nothing_broken_holds(accepted, faces, tmp_path):
    evaluated_again(accepted, faces, tmp_path / "runs")


def test_the_job_of_the_documentation_runs_as_it_stands(tmp_path):
    """Its own steps, one after the other; installing is what this test's environment has done already."""
    block = (ROOT / "docs/regression-tests.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    steps = re.findall(r"^ +- run: (.*)$", block, re.MULTILINE)
    assert steps[0] == "pip install ferbench"
    assert len(steps) == 3
    for step in steps[1:]:
        program, *words = step.split()
        assert program == "ferbench"
        told = ferbench(*words, cwd=tmp_path).stdout
    assert told.startswith("::notice title=ferbench check::held: ")


@pytest.mark.slow
def test_constant_weights_of_the_selective_feature_unit_are_caught(accepted, faces, tmp_path, monkeypatch):
    monkeypatch.setattr(SelectiveFeatureUnit, "forward", lambda self, parts: sum(parts) / len(parts))
    with pytest.raises(CheckFailed):
        evaluated_again(accepted, faces, tmp_path / "runs")


@pytest.mark.slow
def test_swapped_attention_maps_are_caught(accepted, faces, tmp_path, monkeypatch):
    right = AttentionMapGenerator.forward
    monkeypatch.setattr(AttentionMapGenerator, "forward", lambda self, x: right(self, x).flip(1))
    with pytest.raises(CheckFailed):
        evaluated_again(accepted, faces, tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.long
def test_shuffled_labels_are_caught(tmp_path):
    """The project's own accuracy on drawn faces is held to its accepted figure; with shuffled labels it falls."""
    ferbench(*TRAIN, cwd=tmp_path)
    assert ferbench("check", "--baseline", str(ACCEPTED), cwd=tmp_path).stdout.startswith("held: GFNet")
    broken = (
        "import sys, numpy as np\n"
        "from ferbench.execution import views\n"
        "right = views.targets\n"
        "def shuffled(faces, rows, classes):\n"
        "    return np.random.default_rng(0).permutation(right(faces, rows, classes))\n"
        "views.targets = shuffled\n"
        "from ferbench.cli.main import run\n"
        "run()\n"
    )
    assert views.targets  # the name that is broken above
    (tmp_path / "broken.py").write_text(broken)
    import os
    import subprocess
    import sys

    env = {**os.environ, "FERBENCH_DATA": str(tmp_path / "data"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "broken.py", *TRAIN, "--runs", "shuffled"]
    subprocess.run(command, cwd=tmp_path, env=env, check=True, stdout=subprocess.PIPE)
    done = ferbench(
        "check", "--baseline", str(ACCEPTED), "--runs", "shuffled", "--format", "json", cwd=tmp_path, code=1
    )
    (finding,) = json.loads(done.stdout)
    assert finding["found"] < finding["accepted"]
    assert "1 of 1 accepted figures fell" in done.stderr


@pytest.mark.slow
@pytest.mark.real
def test_two_folds_of_ck_hold_their_accepted_figure(real_data, tmp_path):
    """Ten epochs from the weights that come with the package: what a change of code would lose on real faces."""
    ferbench("data", "prepare", "ckplus", str(real_data / "CK+48.zip"), cwd=tmp_path)
    ferbench(
        "train",
        "wslgan",
        "--dataset",
        "ckplus",
        "--preset",
        "tiny",
        "--folds",
        "01,04",
        "--epochs",
        "10",
        "--threads",
        "1",
        cwd=tmp_path,
    )
    told = ferbench("check", "--baseline", str(ACCEPTED.with_name("ckplus-wslgan-tiny.json")), cwd=tmp_path).stdout
    assert told.startswith("held: WS-LGAN (tiny) under ckplus@1 with epochs=10: ")
