"""A folder where a file belongs, and a file where a folder belongs: refused in one line before any work is done."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from support.command import ferbench
from support.help_texts import commands
from support.runs import store_fold

from ferbench.cli import main
from ferbench.errors import FAULT, DataError, UsageError, refusal
from ferbench.files import check_place, write_text
from ferbench.runs.store import Store

# What takes a file as well as a folder; each says itself what it cannot take.
EITHER = {("data prepare", "source"), ("predict", "sources"), ("export", "out"), ("report", "out")}
PLACES = [
    pytest.param(command, param, id=f"{' '.join(words)} {param.name}")
    for words, command, _ in commands()
    for param in command.params
    if "Path" in str(inspect.get_annotations(inspect.unwrap(command.callback), eval_str=True).get(param.name))
    and (" ".join(words), param.name) not in EITHER
]


@pytest.mark.parametrize(("command", "param"), PLACES)
def test_every_path_is_refused_where_the_other_kind_is(command, param, tmp_path):
    """Of each command's options and arguments, also of those that are to come."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    option = [param.opts[0]] if param.param_type_name == "option" else []
    refused = {}
    for name in ("folder", "file", "file/below"):
        try:
            command.make_context("ferbench", [*option, str(tmp_path / name)])
        except UsageError as error:
            refused[name] = str(error)
        except Exception as error:
            if not hasattr(error, "show"):  # not that another option is missing, so that this one was taken
                raise
    assert refused.keys() in ({"folder", "file/below"}, {"file", "file/below"})
    assert all(param.opts[0] in line and str(tmp_path) in line for line in refused.values())


def test_folders_of_environment_variables_are_examined_too(tmp_path):
    (tmp_path / "file").touch()
    for name, option, words in (
        ("FERBENCH_RUNS", "--runs", ["runs"]),
        ("FERBENCH_DATA", "--data-home", ["data", "list"]),
    ):
        told = ferbench(*words, cwd=tmp_path, code=2, **{name: str(tmp_path / "file")}).stderr
        assert told == f"ferbench: {option} {tmp_path / 'file'}: {tmp_path / 'file'} is a file, not a folder\n"


@pytest.mark.parametrize(
    "words",
    [
        ("report", "--format", "html", "--out", "folder"),
        ("report", "--format", "tensorboard", "--out", "file"),
        ("report", "--figures", "file"),
        ("report", "--trials", "--format", "json", "--out", "file/below"),
        ("report", "--runs", "file"),
        ("runs", "--runs", "file/below"),
        ("paper", "--format", "json", "--out", "folder"),
        ("check", "--baseline", "folder"),
        ("check", "--accept", "--reason", "x", "--baseline", "folder"),
        ("compare", "file", "folder"),
        ("protocol", "export", "synth", "--out", "folder"),
        ("protocol", "show", "folder.toml"),
        ("audit", "folder", "--dataset", "synth"),
        ("evaluate", "folder.toml", "--dataset", "synth"),
        ("evaluate", "--predictions", "folder", "--dataset", "synth", "--name", "x"),
        ("card", "folder.onnx"),
        ("train", "folder.toml", "--dataset", "synth", "--dry-run"),
        ("sweep", "folder.toml", "--dry-run"),
        ("data", "prepare", "ckplus", "file"),
        ("data", "list", "--data-home", "file"),
    ],
    ids=" ".join,
)
def test_commands_end_in_one_line(words, tmp_path):
    for name in ("folder", "folder.toml", "folder.onnx"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("x")
    store_fold(Store(tmp_path / "runs"), "01", [("S1", "anger", "anger"), ("S2", "fear", "anger")])
    before = sorted(tmp_path.rglob("*"))
    env = {**os.environ, "FERBENCH_DATA": str(tmp_path / "data"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ferbench", *words]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode in (2, 3)
    assert "Traceback" not in done.stderr
    told = done.stderr.splitlines()[-1]
    assert told.startswith("ferbench: ")
    assert any(name in told for name in words if name.startswith(("file", "folder")))
    assert sorted(path for path in tmp_path.rglob("*") if "data" not in path.parts) == before


def test_what_can_be_written_is_not_refused(tmp_path):
    (tmp_path / "file").touch()
    check_place(tmp_path / "file", "--out")
    check_place(tmp_path / "new" / "deep" / "file", "--out")
    check_place(tmp_path, "--runs", folder=True)
    check_place(tmp_path / "new" / "deep", "--runs", folder=True)
    check_place(Path("new"), "--runs", folder=True)


def test_below_the_command_line_the_operating_system_says_so_in_one_line(tmp_path):
    """From Python, or where something got in the way meanwhile: the path that was meant is named, no temporary one."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match=r"a folder is where a file belongs") as told:
            write_text(path, "x")
        assert str(told.value).startswith((f"{path}:", f"{tmp_path / 'file'}:"))
    with pytest.raises(DataError, match="no file can have this name"):
        write_text(tmp_path / ("x" * 300), "x")
    assert refusal(FileExistsError(17, "File exists", "f")).startswith("f: ")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "folder"]


def test_an_unexpected_error_does_not_end_like_a_failed_check(monkeypatch, capsys):
    def broken(*_: object, **__: object) -> None:
        raise KeyError("emotion")

    monkeypatch.setattr(main, "app", broken)
    assert main._code() == FAULT == 70
    told = capsys.readouterr().err
    assert "KeyError: 'emotion'" in told
    assert told.splitlines()[-1].startswith("ferbench: unexpected error")
