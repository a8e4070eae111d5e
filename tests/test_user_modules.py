"""Modules of users: what decides a result is part of its key, and a folder's modules are never taken for another's."""

import json
import os
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.command import ferbench
from support.datasets import lay_down, make_faces, people
from support.models import example

from ferbench.errors import DataError, UsageError
from ferbench.inference import evaluate
from ferbench.methods import modules
from ferbench.methods.foreign.cards import card_of, template
from ferbench.methods.recipes import resolve, source_hash
from ferbench.protocol import protocol as protocols
from ferbench.runs.store import Store

CLASSES = ["anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"]
CARD = """
[model]
source = "{source}"
kind = "callable"
[output]
labels = ["anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"]
"""
MODEL = "import numpy as np\n{}\ndef model(faces):\n    return np.eye(7)[[{}] * len(faces)]\n"


@pytest.fixture
def place(tmp_path):
    lay_down(make_faces(people(10, CLASSES, frames=1), name="ckplus"), tmp_path / "data")
    return tmp_path


def guess(place, folder="", source="net:model", **more):
    """The class that a model of a constant answer gives, and the key of its run."""
    path = place / folder / "net.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(CARD.format(source=source))
    record = evaluate.evaluate(str(path), "", "ckplus", place / "runs", place / "data", **more)
    (predicted,) = set(Store(place / "runs").predictions(record.key)["prediction"])
    return predicted, record.key


def helper_imported(place, number):
    (place / "net.py").write_text(MODEL.format("from middle import which", "which()"))
    (place / "middle.py").write_text("import deep\nwhich = lambda: deep.CLASS\n")
    (place / "deep.py").write_text(f"CLASS = {number}\n")


def helper_of_a_package(place, number):
    (place / "net.py").write_text(MODEL.format("from parts import head", "head.CLASS"))
    (place / "parts").mkdir(exist_ok=True)
    (place / "parts" / "__init__.py").write_text("")
    (place / "parts" / "head.py").write_text("from .constants import CLASS\n")
    (place / "parts" / "constants.py").write_text(f"CLASS = {number}\n")


def helper_imported_late(place, number):
    (place / "net.py").write_text(
        "import numpy as np\ndef model(faces):\n    import late\n    return late.given(faces)\n"
    )
    (place / "late.py").write_text(MODEL.format("", number).replace("def model", "def given"))


def numbers_opened(place, number):
    (place / "net.py").write_text(MODEL.format("CLASS = int(np.load('/'.join([__file__[:-6], 'w.npy'])))", "CLASS"))
    np.save(place / "w.npy", number)


def numbers_opened_late(place, number):
    text = "from functools import cache\n@cache\ndef load(): return int(np.load(__file__[:-6] + 'w.npy'))"
    (place / "net.py").write_text(MODEL.format(text, "load()"))
    np.save(place / "w.npy", number)


def numbers_opened_by_native_code(place, number):
    """safetensors opens files in Rust, which Python is not told of."""
    text = (
        "from pathlib import Path\nfrom safetensors.numpy import load_file\n"
        "HERE = Path(__file__).parent\nCLASS = int(load_file(HERE / 'weights' / 'net.safetensors')['w'][0])"
    )
    (place / "net.py").write_text(MODEL.format(text, "CLASS"))
    (place / "weights").mkdir(exist_ok=True)
    save_file({"w": np.array([number])}, place / "weights" / "net.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        helper_imported,
        helper_of_a_package,
        helper_imported_late,
        numbers_opened,
        numbers_opened_late,
        numbers_opened_by_native_code,
    ],
)
def test_whatever_decides_a_result_is_part_of_its_key(place, change):
    keys = []
    for number in (0, 4, 0):
        change(place, number)
        predicted, key = guess(place)
        assert predicted == CLASSES[number]
        keys.append(key)
    assert keys[0] == keys[2] != keys[1]


def test_a_module_alone_has_the_key_that_it_had(place):
    (place / "net.py").write_text(MODEL.format("import json, scipy", 3))
    _, key = guess(place)
    assert set(Store(place / "runs").record(key).identity.recipe) == {"model", "input", "output", "file"}
    assert Store(place / "runs").record(key).identity.recipe["output"].keys() == {"labels", "gives"}


def test_a_card_without_family_name_and_preset_has_the_key_of_one_with_them(place):
    (place / "net.py").write_text(MODEL.format("", 3))
    _, key = guess(place)
    long = 'family = "foreign"\nname = "net"\ntitle = "net"\n' + CARD.format(source="net:model") + "[preset.own]\n"
    (place / "net.toml").write_text(long)
    assert evaluate.evaluate(str(place / "net.toml"), "", "ckplus", place / "runs", place / "data").key == key


def test_files_that_are_written_or_belong_to_packages_are_no_part_of_a_key(place):
    text = (
        "import sklearn.svm, joblib\nfrom pathlib import Path\nHERE = Path(__file__).parent\n"
        "with open(HERE / ('out.' + 'txt'), 'w') as file: file.write(str(id(file)))\n"
        "Path('/proc/self/status').read_text(), Path(np.__file__).read_text()"
    )
    (place / "net.py").write_text(MODEL.format(text, 3))
    _, key = guess(place)
    assert "uses" not in Store(place / "runs").record(key).identity.recipe


def test_a_reused_result_is_told_and_fresh_tests_again(place):
    (place / "net.py").write_text(MODEL.format("", 3))
    (place / "net.toml").write_text(CARD.format(source="net:model"))
    words = ("evaluate", "net.toml", "-d", "ckplus", "--format", "json")
    first = ferbench(*words, cwd=place)
    (key,) = os.listdir(place / "runs")
    record = place / "runs" / key / "record.json"
    assert "reused" not in first.stderr
    os.utime(record, (1e9, 1e9))
    again = ferbench(*words, cwd=place)
    assert f"reused from {key}, tested 2001-09-0" in again.stderr
    assert "(--fresh tests again)" in again.stderr
    assert json.loads(again.stdout) == json.loads(first.stdout)
    fresh = ferbench(*words, "--fresh", cwd=place)
    assert "reused" not in fresh.stderr
    assert time.time() - record.stat().st_mtime < 600
    assert "--fresh goes without --refit" in ferbench(*words, "--fresh", "--refit", cwd=place, code=2).stderr


def test_predictions_of_a_file_are_reused_and_tested_again_likewise(place):
    rows = "".join(f"S{s:03d}_{n:03d}_01,{label}\n" for s in range(10) for n, label in enumerate(CLASSES))
    (place / "theirs.csv").write_text("id,prediction\n" + rows)
    words = ("evaluate", "--predictions", "theirs.csv", "-d", "ckplus")
    assert "reused" not in ferbench(*words, cwd=place).stderr
    assert "reused from" in ferbench(*words, cwd=place).stderr
    assert "reused" not in ferbench(*words, "--fresh", cwd=place).stderr


def test_modules_of_one_name_in_two_folders_are_two_modules(place):
    for folder, number in (("a", 1), ("b", 5)):
        (place / folder).mkdir()
        helper_imported(place / folder, number)
    assert [guess(place, folder)[0] for folder in ("a", "b", "a")] == [CLASSES[1], CLASSES[5], CLASSES[1]]
    assert guess(place, "b", fresh=True)[0] == CLASSES[5]
    assert sum(path.startswith(str(place)) for path in sys.path) == 1


def test_a_module_that_is_imported_late_is_that_of_its_folder(place):
    for folder, number in (("a", 1), ("b", 5)):
        (place / folder).mkdir()
        (place / folder / "net.py").write_text(f"def number():\n    import other\n    return other.N + {number}\n")
        (place / folder / "other.py").write_text(f"N = {10 * number}\n")
    made = {folder: modules.load("net", (place / folder,)) for folder in ("a", "b")}
    for folder, expected in (("a", 11), ("b", 55), ("a", 11)):
        with modules.running(made[folder]):
            assert made[folder].number() == expected


def test_families_of_one_name_in_two_folders_are_two_families(place):
    hashes = []
    for folder, cells in (("a", "cells"), ("b", "size_of_grid")):
        (place / folder).mkdir()
        example(place / folder)
        for name in ("nearest.py", "nearest-mean.toml"):
            path = place / folder / name
            path.write_text(path.read_text().replace("cells", cells))
        method = resolve(str(place / folder / "nearest-mean.toml"), "", "ckplus")
        assert set(method.recipe.model_dump()) == {cells}
        hashes.append(source_hash(method.family))
    assert hashes[0] != hashes[1]


def test_what_a_family_imports_is_part_of_its_hash(place):
    hashes = []
    for folder, text in (("a", ""), ("b", "import grid\n"), ("c", "import grid\n")):
        (place / folder).mkdir()
        path = example(place / folder)
        (place / folder / "nearest.py").write_text(text + (place / folder / "nearest.py").read_text())
        (place / folder / "grid.py").write_text(f"# {folder}\n")
        hashes.append(source_hash(resolve(str(path), "", "ckplus").family))
    assert len(set(hashes)) == 3


@pytest.mark.parametrize("name", ["statistics", "queue", "time", "numpy"])
def test_a_module_with_the_name_of_another_is_refused_by_its_path(place, name):
    (place / f"{name}.py").write_text(MODEL.format("", 3).replace("import numpy as np", ""))
    with pytest.raises(DataError, match=rf"/{name}.py has the name of a module of Python or .*: rename the file"):
        guess(place, source=f"{name}:model")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("def model(:", "SyntaxError"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import nowhere_at_all", "No module named 'nowhere_at_all'"),
        ("raise ValueError('two\\nlines')", "ValueError: two"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(place, text, words):
    (place / "net.py").write_text(text + "\n")
    with pytest.raises(DataError, match=f"the module 'net' cannot be imported .*{words}") as caught:
        guess(place)
    assert "\n" not in str(caught.value)


def test_a_folder_of_images_with_the_name_of_a_module_is_no_module(place):
    (place / "net").mkdir()
    assert not modules.holds(place, "net")
    (place / "net" / "part.py").write_text("")
    assert modules.holds(place, "net.part")


@pytest.mark.parametrize("name", ["net.pth", "net.PT", "net.bin", "net.safetensors", "model.mlmodel"])
def test_a_file_of_weights_is_told_what_is_possible(place, name):
    (place / name).write_bytes(b"PK\x03\x04")
    said = ferbench("evaluate", name, "-d", "ckplus", cwd=place, code=2).stderr
    assert said.count("\n") == 1
    for words in ("torch.onnx.export", "module:function", "`ferbench card`"):
        assert words in said
    if name != "model.mlmodel":
        with pytest.raises(UsageError, match="no weights without their network"):
            template(str(place / name))


def test_what_does_not_exist_is_said_to_be_missing(place, monkeypatch):
    monkeypatch.chdir(place)
    with pytest.raises(DataError, match=r"absent.toml does not exist: `ferbench card MODEL > absent.toml` writes"):
        card_of("absent.toml")
    with pytest.raises(UsageError, match=r"absent.onnx has no card absent.toml: .*; absent.onnx does not exist either"):
        card_of("absent.onnx")
    with pytest.raises(DataError, match=r"mine.toml does not exist: name the TOML file of a method"):
        resolve("mine.toml", "", "ckplus")
    assert ferbench("train", "mine.toml", "-d", "ckplus", cwd=place, code=3).stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('title = "x"\n', 'names no family: a method has a line `family = "..."`, a card has a table'),
        ("family = 3\n", "names no family"),
        (
            'family = "foreign"\nname = "x"\ntitle = "x"\n',
            r"has no preset: add one, such as the empty table \[preset.own\]",
        ),
        ('[model]\nsource = "x:y"\nkind = "callable"\n[preset.other]\n', None),
    ],
)
def test_a_card_that_lacks_something_is_told_what(place, text, words):
    path = place / "x.toml"
    path.write_text(text)
    if words is None:
        assert resolve(str(path), "", "ckplus").preset == "other"
        return
    with pytest.raises(DataError, match=words):
        resolve(str(path), "", "ckplus")


def test_what_is_unknown_is_told_with_what_there_is():
    with pytest.raises(UsageError, match=r"unknown method 'zzzz'\. There are: wslgan, "):
        resolve("zzzz", "", "ckplus")
    with pytest.raises(UsageError, match=r"unknown method 'wsl-gan'; did you mean wslgan\? There are: wslgan, "):
        resolve("wsl-gan", "", "ckplus")
    with pytest.raises(UsageError, match=r"gfnet has no preset 'tinny'; did you mean tiny\? There are: "):
        resolve("gfnet", "tinny", "ckplus")
    with pytest.raises(UsageError, match=r"unknown protocol 'ck'.*There are: "):
        protocols.load("ck")
