"""What `make demo` does, as it does it: it ends in minutes with figures that teach something."""

import json
import re

import pytest
from conftest import ROOT
from support.command import ferbench

from ferbench.methods.recipes import resolve
from ferbench.protocol import protocol as protocols


def test_the_set_of_the_demo_takes_its_preset_and_names_the_long_way():
    protocol = protocols.load("synth")
    small, whole = (resolve("wslgan", preset, "synth").recipe for preset in (protocol.preset, "tiny"))
    assert protocol.preset == "demo"
    for stage in ("attention", "pretrain", "finetune"):
        assert getattr(small, stage).batch > getattr(whole, stage).batch  # small steps cost a CPU the most
    assert sum(small.architecture.generator_layers) < sum(whole.architecture.generator_layers) / 5


def test_the_makefile_trains_on_the_set_of_the_demo_and_says_where_its_page_is():
    lines = (ROOT / "Makefile").read_text().split("demo: install\n")[1].split("\n\n")[0]
    assert "ferbench train wslgan --dataset synth " in lines
    (page,) = re.findall(r"--format html .*--out (\S+)", lines)
    assert f"$(CURDIR)/{page}" in lines.splitlines()[-1]


@pytest.mark.slow
def test_the_demo_learns_to_tell_expressions_and_its_maps_lie_on_the_parts(tmp_path):
    ferbench("train", "wslgan", "--dataset", "synth", "--precision", "fp32", cwd=tmp_path)
    (report,) = json.loads(ferbench("report", "--format", "json", cwd=tmp_path).stdout)
    (training,) = report["trainings"]
    assert training["images"] == 600
    assert 3 / 7 < training["accuracy"] < 1  # of seven classes, a seventh is chance
    ferbench("report", "--format", "html", "--errors", "12", "--out", "demo.html", cwd=tmp_path)
    assert "<img" in (tmp_path / "demo.html").read_text()
    (stage,) = (path for path in (tmp_path / "runs").glob("*/record.json") if '"kind": "attention"' in path.read_text())
    (looked,) = json.loads(ferbench("maps", stage.parent.name, "--format", "json", cwd=tmp_path).stdout).values()
    assert {row["map"] for row in looked} == {"eyes", "mouth"}
    for row in looked:
        on, anywhere = (float(row[name].rstrip("%")) for name in ("maximum on the part", "anywhere would be"))
        assert on > 2 * anywhere
