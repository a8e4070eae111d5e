"""Looking at attention maps: the score, the figure, whose maps, and what is refused."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from support.command import ferbench
from support.datasets import lay_down, make_faces
from support.networks import SMALL_FIELDS, seeded
from support.runs import store_stage

from ferbench.data.faces import load
from ferbench.data.synthetic.anatomy import Person, expression, scaled
from ferbench.data.synthetic.drawing import View, render
from ferbench.data.synthetic.sets import prepare_synthetic
from ferbench.errors import DataError, UsageError
from ferbench.files import write_bytes
from ferbench.inference.maps import evaluate_maps
from ferbench.methods.wslgan.network import AttentionMapGenerator
from ferbench.methods.wslgan.recipe import Architecture
from ferbench.runs.store import Store
from ferbench.schema import plain
from ferbench.seeds import generator
from ferbench.training import pointing
from ferbench.training.checkpoint import pack, unpack


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("maps")
    prepare_synthetic("synth", home)
    return home


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("maps") / "runs")
    architecture = Architecture(**SMALL_FIELDS)
    key = store_stage(store, "attention", recipe=plain({"generator": architecture.generator()}))
    write_bytes(store.folder(key) / "weights.safetensors", pack(seeded(AttentionMapGenerator(architecture), 1), {}))
    return store


def test_the_score_is_that_of_each_images_own_map(store, home):
    (record,) = (record for record in store.records() if record.identity.kind == "attention")
    found = evaluate_maps(record.key[:6], "tiny", "synth", None, 1, store.home, home)
    amg = AttentionMapGenerator(Architecture(**SMALL_FIELDS))
    amg.load_state_dict(unpack(store.folder(record.key) / "weights.safetensors")[0])
    amg.freeze()
    images = torch.from_numpy(np.array(load("synth", home).images)).unsqueeze(1).float() / 255
    with torch.no_grad():
        maps = amg(images)
    for number, one in enumerate(found.pointing):
        assert one.part == ("eyes", "mouth")[number]
        assert one.share == pytest.approx(pointing.on_part(maps[:, number], one.part).double().mean().item(), abs=0.01)
        assert one.images == len(images)
    assert found.figures == []


def test_a_runs_own_reading_of_the_maps_is_taken(store, home):
    (key,) = (record.key for record in store.records() if record.identity.kind == "attention")
    amg = AttentionMapGenerator(Architecture(**SMALL_FIELDS))
    amg.load_state_dict(unpack(store.folder(key) / "weights.safetensors")[0])
    amg.freeze()
    images = torch.from_numpy(np.array(load("synth", home).images)).unsqueeze(1).float() / 255
    scores = {}
    for reading in ("either", "positive"):
        recipe = plain({"architecture": asdict(Architecture(**SMALL_FIELDS, cam_class=reading))})
        user = store_stage(store, "pretrain", recipe=recipe, parents={"attention": key})
        scores[reading] = [
            one.share for one in evaluate_maps(user, "tiny", "synth", None, 1, store.home, home).pointing
        ]
        amg.cam_class = reading
        with torch.no_grad():
            maps = amg(images)
        for number, part in enumerate(("eyes", "mouth")):
            hits = pointing.on_part(maps[:, number], part).double().mean().item()
            assert scores[reading][number] == pytest.approx(hits, abs=0.01)
    assert scores["either"] != scores["positive"]


def test_the_figure_shows_every_expression_as_png_and_svg(store, home, tmp_path):
    words = ["maps", "--dataset", "synth", "--faces", "1", "--out", "out", "--data-home", str(home), "--format", "json"]
    told = json.loads(ferbench(*words, cwd=tmp_path).stdout)
    names = [row["file"] for row in told["figures"]]
    assert names == ["out/synth-maps.png", "out/synth-maps.svg"]
    assert (tmp_path / names[0]).read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / names[1]).read_text()
    assert all(word in svg for word in ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"))
    assert "<image" in svg


@pytest.mark.parametrize("part", ["eyes", "mouth"])
def test_drawn_faces_have_their_parts_in_the_templates_regions(part):
    """As the drawn sets draw them: landmarks of the brows, eyes and mouth, ground truth of the pointing game."""
    left, top, right, bottom = pointing.region(part)
    rows = slice(36, 48) if part == "eyes" else slice(48, 68)
    for number in range(20):
        rng = generator(1, "maps", number)
        units = scaled(expression("happiness" if number % 2 else "anger", rng), 1.0)
        _, points = render(Person.draw(rng), units, View.draw(rng, 0.0), rng)
        x, y = points[rows].mean(axis=0)
        assert left < x < right
        assert top < y < bottom
        inside = (
            (points[rows, 0] >= left)
            & (points[rows, 0] <= right)
            & (points[rows, 1] >= top)
            & (points[rows, 1] <= bottom)
        )
        assert inside.mean() > 0.9


def test_what_cannot_be_looked_at_is_refused(store, home, tmp_path):
    with pytest.raises(UsageError, match="no finished run"):
        evaluate_maps("abcdef", "tiny", "synth", None, 1, store.home, home)
    with pytest.raises(UsageError, match="no attention maps come with ferbench for the preset 'paper'"):
        evaluate_maps("", "paper", "synth", None, 1, None, home)
    gfnet = store_stage(store, "pretrain", method="gfnet")
    with pytest.raises(UsageError, match="takes no attention maps"):
        evaluate_maps(gfnet, "tiny", "synth", None, 1, store.home, home)
    lay_down(make_faces([{"split": "train", "Smiling": 1}], name="synth-attributes"), tmp_path)
    with pytest.raises(DataError, match="no expressions"):
        evaluate_maps("", "tiny", "synth-attributes", tmp_path, 1, None, tmp_path)
