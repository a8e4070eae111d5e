"""Damaged files: each command notices, names the file and says what to do, or makes it again; none goes on with it."""

import random
import shutil
import sys
from pathlib import Path

import pytest
from damage import ALONE, DAMAGES, TRAIN, cases, network, ready
from helpers import attention, checkpoints, flip, inside, lay, runs, stored, train, truncate

from ferbench.data import faces
from ferbench.errors import DataError, FerbenchError
from ferbench.runs.store import Store
from ferbench.training import checkpoint


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return ready(tmp_path_factory.mktemp("world"))


@pytest.fixture
def place(world, tmp_path) -> Path:
    shutil.copytree(world, tmp_path / "place")
    return tmp_path / "place"


FAST = list(cases(slow=False))
SLOW = [case for case in cases(slow=True) if case not in FAST]


def named(case) -> str:
    return f"{case.command.name}: {case.fault}".replace(" ", "-")


@pytest.mark.parametrize("case", FAST, ids=named)
def test_a_damaged_file_is_noticed_or_not_read(case, place):
    ended = case.meet(place)
    assert case.noticed(ended), (ended.code, ended.out, ended.err)
    if case.read:
        assert ended.err.count("\n") == 1
        assert ended.line.endswith(("train again", "again", "goes on")), ended.line


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW, ids=named)
def test_a_damaged_file_is_not_read_by_commands_that_take_long(case, place):
    ended = case.meet(place)
    assert case.noticed(ended), (ended.code, ended.out, ended.err)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["record.json", "predictions.csv", "weights.safetensors", "history.csv"])
def test_train_makes_a_damaged_run_again_to_the_same_bytes(file, damage, place):
    before, path = stored(place), runs(place)[network(place)] / file
    DAMAGES[damage](path)
    ended = inside(TRAIN, place)
    assert ended.code == 0, ended.err
    assert f"{path.name} is damaged" in ended.out.replace("\n", "")
    assert "it is trained again" in " ".join(ended.out.split())  # the lines are as wide as a terminal
    assert ended.out.count("reused") == 2  # in the plan and at the end: the other fold
    assert stored(place) == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_parent_is_not_started_from(damage, place):
    key = attention(place)
    DAMAGES[damage](place / "runs" / key / "weights.safetensors")
    words = ["train", "wslgan", "--dataset", "toy.toml", "--amg", key[:6], "--no-pretrain", "--epochs", "1", *ALONE]
    ended = inside(words, place)
    assert ended.code == 3
    assert f"{key}/weights.safetensors is damaged (it is not what was stored)" in ended.line
    ended = inside(["maps", key[:6], "--dataset", "toy"], place)
    assert (ended.code, "weights.safetensors is damaged" in ended.line) == (3, True)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_identity_of_unfinished_work_is_named_and_train_goes_on(damage, place):
    folder = runs(place)[network(place)]
    before = stored(place)
    (folder / "record.json").unlink()
    DAMAGES[damage](folder / "identity.json")
    for words in (["runs"], ["report"]):
        ended = inside(words, place)
        assert (ended.code, "identity.json is damaged" in ended.line) == (3, True), ended.line
    assert inside(TRAIN, place).code == 0
    assert stored(place) == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_thrown_away_and_the_training_ends_with_the_same_bytes(damage, place, monkeypatch):
    words, others = train(4, *ALONE, "--folds", "01"), set(runs(place))
    assert inside(words, place).code == 0
    whole, (key,) = stored(place), set(runs(place)) - others
    shutil.rmtree(place / "runs" / key)
    save = checkpoint.save

    def cut_off(path, *more):
        save(path, *more)
        if checkpoint.epochs_done(path) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", cut_off)
        assert inside(words, place).code == 130
    (file,) = checkpoints(place)
    DAMAGES[damage](file)
    ended = inside(words, place)
    assert ended.code == 0, ended.err
    assert "was damaged and is deleted" in ended.out.replace("\n", "")
    assert stored(place) == whole


def test_any_flipped_bit_of_a_record_or_card_is_noticed_or_changes_nothing(place):
    draw, store, key = random.Random(0), Store(place / "runs"), network(place)
    for path, read in (
        (store.folder(key) / "record.json", lambda: store.record(key)),
        (place / "data" / "toy" / "card.json", lambda: faces.load_card("toy", place / "data")),
    ):
        content, before, noticed = path.read_bytes(), read(), 0
        for _ in range(300):
            flip(path, draw.random(), draw.randrange(8))
            try:
                same = read() == before
            except DataError as error:
                same = path.name in str(error)
                noticed += 1
            assert same, path.read_bytes()
            path.write_bytes(content)
        assert noticed > 200


def test_any_flipped_bit_of_a_checkpoint_is_noticed_or_changes_nothing(tmp_path):
    import torch

    path, draw = tmp_path / "network.safetensors", random.Random(0)
    tensors = {"a": torch.arange(40.0), "b": torch.ones(3, dtype=torch.bfloat16), "c": torch.tensor(5)}
    progress = '{"epoch": 3, "history": [], "best_score": 0.5}'
    content = checkpoint.sealed(tensors, {"progress": progress})
    for _ in range(300):
        path.write_bytes(content)
        flip(path, draw.random(), draw.randrange(8))
        if not checkpoint.sift(tmp_path):
            found, told = checkpoint.unsealed(path)
            assert told["progress"] == progress
            assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    path.write_bytes(content)
    assert checkpoint.sift(tmp_path) == []
    assert checkpoint.epochs_done(path) == 3


def test_kept_epochs_and_tables_are_made_again_where_they_are_damaged(tmp_path):
    import torch

    path, made = tmp_path / "table.safetensors", []

    def make():
        made.append(1)
        return {"maps": torch.arange(6.0)}

    for damage in (None, None, flip, truncate):
        if damage:
            damage(path)
        assert torch.equal(checkpoint.remembered(path, make)["maps"], torch.arange(6.0))
    assert len(made) == 3


def test_runs_and_sets_of_before_there_were_checksums_are_read_and_sets_held_against_their_fingerprints(place):
    import json

    store, key = Store(place / "runs"), network(place)
    path = store.folder(key) / "record.json"
    old = {name: value for name, value in json.loads(path.read_text()).items() if name not in ("files", "digest")}
    path.write_text(json.dumps(old))
    assert store.checked(key) == "done"
    assert inside(["report"], place).code == 0
    path.write_text(json.dumps(old | {"key": "0" * 16}))
    assert "it is not of the run" in store.damage(key)
    card = place / "data" / "toy" / "card.json"
    old = {name: value for name, value in json.loads(card.read_text()).items() if name not in ("files", "digest")}
    card.write_text(json.dumps(old))
    assert len(faces.load("toy", place / "data")) == 36
    for file in ("images.npy", "samples.csv", "landmarks.npy"):
        path = card.parent / file
        content = path.read_bytes()
        flip(path, 0.5)
        with pytest.raises(FerbenchError, match="is damaged"):
            faces.load("toy", place / "data")
        path.write_bytes(content)


def test_a_thousand_runs_are_verified_in_a_report_without_reading_any_file_twice(tmp_path):
    """What makes it quick is counted, on any machine."""
    lay(tmp_path)
    store = Store(tmp_path / "runs")
    opened: list[str] = []
    assert inside([*TRAIN[:-4], *ALONE, "--folds", "01"], tmp_path).code == 0
    sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" and LISTENING else None)
    LISTENING.append(1)
    try:
        assert inside(["report", "--format", "json"], tmp_path).code == 0
    finally:
        LISTENING.clear()
    (key,) = runs(tmp_path)
    own = [Path(path).name for path in opened if path.startswith(str(store.folder(key)))]
    assert own.count("predictions.csv") == 1
    assert "weights.safetensors" not in own


LISTENING: list[int] = []
