"""A stranger's runs, tables and names: shown as text, and leading nowhere."""

import csv
import html.parser
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from support.command import ferbench
from support.runs import CLASSES, store_fold
from support.texts import NASTY, STEERS

from ferbench import text
from ferbench.data import faces
from ferbench.errors import DataError, UsageError
from ferbench.protocol import protocol as protocols
from ferbench.reading import read_array, read_csv
from ferbench.report.formats import text as formats
from ferbench.report.table import Column, Section, Table
from ferbench.runs.store import Store
from ferbench.schema import parse_json, read_json, read_toml

ROWS = [(f"S{n:02d}", truth, truth if n % 3 else "sadness") for n in range(4) for truth in CLASSES]


@pytest.fixture
def store(tmp_path):
    """Runs with hostile names wherever a record is free to say something, good checksums included."""
    store = Store(tmp_path / "runs")
    rows = [(NASTY.replace("\r", "") + who, truth, said) for who, truth, said in ROWS]
    facts = {
        "display": f"=cmd|' /C calc'!A0{NASTY}",
        "published": NASTY,
        "notes": [NASTY],
        "rule": NASTY,
        "differs": [NASTY],
        "trained_on": [NASTY],
        "command": "ferbench train x; rm -rf / `id`",
    }
    for seed in (0, 1):
        store_fold(store, "01", rows[:14], seed=seed, facts=facts, folds=("01", "02", NASTY[:3]))
        store_fold(store, "02", rows[14:], seed=seed, facts=facts, folds=("01", "02", NASTY[:3]))
    store_fold(store, "02", [], seed=2, error=NASTY)
    return store


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "words",
    [
        ("report",),
        ("report", "--format", "markdown"),
        ("check", "--format", "github"),
        *(
            pytest.param(words, marks=SLOW)
            for words in (
                ("runs",),
                ("report", "--format", "html"),
                ("report", "--format", "csv"),
                ("report", "--format", "latex"),
                ("compare", "{a}", "{b}"),
                ("compare", "{a}", "{b}", "--format", "markdown"),
                ("check",),
                ("check", "--format", "junit"),
            )
        ),
    ],
)
def test_nothing_of_a_record_steers_what_shows_it(store, tmp_path, words):
    a, b = sorted({record.experiment for record in store.records() if not record.error})
    if words[0] == "check":
        ferbench("check", "--accept", "--reason", "a test", cwd=tmp_path)
    shown = ferbench(*(word.format(a=a, b=b) for word in words), cwd=tmp_path).stdout
    assert len(shown) > 100
    assert not STEERS.search(shown)
    if "github" in words:
        assert all(line.startswith("::") for line in shown.splitlines())
        assert shown.count("::error") == 0
    else:
        assert not re.search("^::", shown, re.M)


def test_markup_of_a_name_is_shown_and_not_obeyed(store, tmp_path):
    assert "[red]red[/red]" in ferbench("runs", cwd=tmp_path).stdout.replace("\n", "").replace(" ", "")


class Tags(html.parser.HTMLParser):
    """Collects what a page would run or fetch."""

    def __init__(self):
        super().__init__()
        self.tags, self.scripts, self.attributes = set(), [], []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [name for name, _ in attrs]
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.lasttag == "script" and self.scripts and not self.scripts[-1]:
            self.scripts[-1] = data


def test_a_page_has_one_script_and_it_is_ours(store, tmp_path):
    page = Tags()
    page.feed(ferbench("report", "--format", "html", cwd=tmp_path).stdout)
    assert len(page.scripts) == 1
    assert "alert" not in page.scripts[0]
    assert not {"iframe", "object", "embed", "form", "base"} & page.tags
    assert not [name for name in page.attributes if name.startswith("on")]


def test_a_command_of_a_record_cannot_do_anything_else(store, tmp_path):
    report = ferbench("report", "--format", "markdown", cwd=tmp_path).stdout
    assert "rm -rf" not in report
    assert text.command("ferbench train x --set a=1 --runs 'my runs'") == "ferbench train x --set a=1 --runs 'my runs'"
    assert text.command("ferbench train x; rm y") == "ferbench train 'x;' rm y"
    assert text.command("rm y") == text.command("ferbench 'x") == text.command("ferbench `x`") == ""


def test_a_command_of_a_build_service_does_not_hide_behind_a_control_character():
    assert text.printable(":\x1a:error file=x::y") == ": :error file=x::y"


@given(st.text(st.characters(), max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_text_becomes_markup(found):
    shown = text.printable(found)
    assert not STEERS.search(shown)
    assert text.printable(shown) == shown
    shown.encode()


MARKUP = st.lists(
    st.sampled_from(
        [
            "`",
            "`",
            "``",
            "<b>",
            "<",
            "|",
            "\\",
            "[a]",
            "(http://x.y)",
            "](",
            "]: x",
            "![",
            "http://x.y",
            "www.x.y",
            "a",
            " ",
            "&lt;",
            "*",
            "\n",
        ]
    ),
    max_size=12,
).map("".join)


@given(MARKUP)
@settings(max_examples=500, deadline=None)
def test_no_text_becomes_html_a_link_or_another_cell(found):
    reader = MarkdownIt("commonmark").enable("table")
    for document in (
        f"- {text.markdown(found)}\n",
        f"| a | b |\n|---|---|\n| {text.markdown(found, cell=True)} | x |\n",
    ):
        tokens = [t for token in reader.parse(document) for t in (token, *(token.children or ()))]
        assert not {token.type for token in tokens} & {"html_inline", "html_block", "link_open", "image"}
        if document.startswith("|"):
            assert sum(token.type == "td_open" for token in tokens) == 2
    words = "".join(
        part.content for t in reader.parse(text.markdown(found)) for part in t.children or () if part.type == "text"
    )
    assert words == "" or not re.search(r"://|\bwww\.", re.sub(text._CODE, "", text.markdown(found)))


def test_a_spreadsheet_gets_no_formula():
    for cell in ("=1+1", "@SUM(A1)", "+1+cmd|' /C calc'!A0", "-2+3", "\t=1", "＝1"):
        assert text.spreadsheet(cell).startswith("'")
    for cell in ("+0.71", "-0.90 ± 0.93", "+2.34 to +6.69", "–", "82.86", "▸ WS-LGAN", "a=b"):
        assert text.spreadsheet(cell) == cell
    section = Section("a", ["x"], [Table("=caption", [Column("=A"), Column("b")], [["=r", "=v"]])])
    (row,) = list(csv.DictReader(io.StringIO(formats.csv([section]))))
    assert {value[:1] for value in row.values()} <= {"'", "a", "1", "b", ""}


def test_a_record_is_only_that_of_its_folder_and_names_lead_nowhere(tmp_path):
    store = Store(tmp_path / "runs")
    key = store_fold(store, "01", ROWS)
    path = store.folder(key) / "record.json"
    good = json.loads(path.read_text())
    for change in (
        {"key": "../../x"},
        {"dataset": "../../x"},
        {"dataset": ".."},
        {"files": {"../x": "0" * 64}},
        {"identity": {**good["identity"], "parents": {"attention": "../../secret"}}},
        {"identity": {**good["identity"], "protocol": "../x@1"}},
    ):
        path.write_text(json.dumps({name: value for name, value in {**good, **change}.items() if name != "digest"}))
        assert ferbench("report", cwd=tmp_path, code=3).stderr.count("\n") == 1
    for name in ("../x", "/etc", "a/b", "..", ".x", "", "a\x1b[0mb", "C:x"):
        with pytest.raises(UsageError, match="cannot be called so"):
            faces.load(name, tmp_path)
    (tmp_path / "own.toml").write_text(
        (protocols.shipped("protocols") / "ckplus.toml")
        .read_text()
        .replace('dataset = "ckplus"', 'dataset = "../secret"')
    )
    with pytest.raises(DataError, match="no plain name"):
        protocols.load(str(tmp_path / "own.toml"))


def test_a_link_out_of_the_store_is_not_followed_and_a_pipe_not_waited_for(tmp_path):
    store = Store(tmp_path / "runs")
    key = store_fold(store, "01", ROWS)
    (tmp_path / "secret").write_text("id\n")
    predictions = store.folder(key) / "predictions.csv"
    predictions.unlink()
    predictions.symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="is a link out of"):
        store.predictions(key)
    predictions.unlink()
    os.mkfifo(predictions)
    with pytest.raises(DataError, match="is no file"):
        store.predictions(key)
    for read in (read_json, read_toml, read_csv, read_array):
        with pytest.raises(DataError, match="is no file"):
            read(predictions)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "NaN",
        "[Infinity]",
        "1e999",
        "9" * 5000,
        str(2**64),
        '"\x00"',
        "\ufeff{}",
        "{",
        "",
    ],
)
def test_json_that_no_program_of_ours_writes_is_one_line(content):
    with pytest.raises(DataError, match="is not valid JSON") as caught:
        parse_json(content, "a file")
    assert len(str(caught.value)) < 300


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp"))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab"), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=100, deadline=None)
def test_json_that_ours_writes_comes_back_as_it_is(content):
    assert parse_json(json.dumps(content), "a file") == content


def test_toml_too_deep_or_too_large_is_one_line(tmp_path):
    path = tmp_path / "a.toml"
    for content in (b"a = " + b"[" * 100_000, b"a = " + b"9" * 5000, b"\xff", b"a = 1\na = 2"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="is not valid TOML"):
            read_toml(path)


def test_a_method_that_extends_itself_ends(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('extends = "own.toml"\n')
    assert "extends" in ferbench("show", "own.toml", cwd=tmp_path, code=2).stderr
    path.write_text('extends = "wslgan"\nname = "own"\n[preset.a]\nextends = "b"\n[preset.b]\nextends = "a"\n')
    assert "extends" in ferbench("show", "own.toml", "--preset", "a", cwd=tmp_path, code=2).stderr


def test_an_array_file_is_never_a_pickle(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "b.npz", a=np.ones(2))
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    (tmp_path / "c.npy").write_bytes(b"")
    for name in ("a.npy", "b.npy", "c.npy"):
        with pytest.raises(DataError, match="is no array"):
            read_array(tmp_path / name)


PICKLES = re.compile(
    r"\b(c?pickle|dill|cloudpickle|joblib|shelve|marshal)\b|(?<!safetensors\.)torch\.(load|save)\(|read_pickle|to_pickle|allow_pickle=True"
)


def test_nothing_of_ours_reads_or_writes_a_pickle():
    folder = faces.__file__.rpartition("/data/")[0]
    for root, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".py"):
                with open(os.path.join(root, name), encoding="utf-8") as file:
                    code = re.sub(r'"""(.|\n)*?"""|#.*|f?"[^"\n]*"', "", file.read())
                assert not PICKLES.search(code), name


def test_no_class_is_looked_up_for_a_pickle_while_runs_are_made_and_read(tmp_path):
    """An estimator is imported by its name, ``module:name``; what was fitted is not stored."""
    code = """
import sys
def heard(event, given):
    if event == "pickle.find_class":
        print("PICKLE", given, file=sys.stderr)
sys.addaudithook(heard)
from ferbench.cli.main import run
run()
"""
    store_fold(Store(tmp_path / "runs"), "01", ROWS, folds=("01",))
    for words in (("report",), ("runs",), ("report", "--format", "html", "--out", "r.html")):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "FERBENCH_RUNS": str(tmp_path / "runs")},
        )
        assert done.returncode == 0, done.stderr
        assert "PICKLE" not in done.stderr


def test_an_onnx_model_opens_no_other_file(tmp_path, monkeypatch):
    from fuzz.targets import _outside
    from support.models import onnx_file

    from ferbench.methods.foreign.files import onnx_session

    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(bytes(8 * 8 * 7 * 4))
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    onnx_file(tmp_path / "inside" / "a.onnx", size=8)
    onnx_session(tmp_path / "inside" / "a.onnx")
    led_out = _outside((tmp_path / "inside" / "a.onnx").read_bytes())
    (tmp_path / "inside" / "a.onnx").write_bytes(led_out)
    with pytest.raises(DataError, match="keeps weights in other files"):
        onnx_session(tmp_path / "inside" / "a.onnx")
    assert "keeps weights in other files" in ferbench("card", "inside/a.onnx", cwd=tmp_path, code=3).stderr


@given(st.text("ab:#[\\\u202e\x7f\n:", max_size=6), st.booleans())
def test_a_file_that_looks_plain_has_nothing_to_clean(value, escaped):
    """Whole files are looked at once instead of each of their texts: never with another result."""
    raw = json.dumps({value: [value]}, ensure_ascii=escaped).encode()
    assert not text.is_plain(raw) or text.cleaned(json.loads(raw)) == json.loads(raw)
    assert text.is_plain(b'{"a": "a record as most are"}')
