"""Documentation that cannot lie about the command line: its commands are parsed, its examples are what is tested."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT
from support.command import ferbench
from support.help_texts import commands, find, parsed

from ferbench import __version__, api
from ferbench.cli import options
from ferbench.data import sources
from ferbench.data.synthetic import SYNTHETIC
from ferbench.methods import recipes
from ferbench.protocol import protocol as protocols

PAGES = sorted([*ROOT.glob("[A-Z]*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "baselines/weights/README.md"])
COMMANDS = list(commands())
VERBS = [(words, command) for words, command, _ in COMMANDS if not hasattr(command, "commands")]
BASIC = {"--help", "--version", "--install-completion"}
OPTIONS = BASIC | {name for _, command in VERBS for param in command.params for name in param.opts}
# Of pip and of a browser; and what options were called, in the changelog.
FOREIGN = {"--no-deps", "--headless", "--hide-scrollbars", "--window-size", "--screenshot"}


def lines(path: Path) -> list[str]:
    """Command lines of ferbench in the blocks of a page."""
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^(?: {4,}|\$ | *- run: )(?:\$ )?(ferbench .*?)\s*$", text, re.MULTILINE)


def inline(path: Path) -> list[str]:
    return re.findall(r"`(ferbench [^`]+)`", path.read_text(encoding="utf-8"))


IN_BLOCKS = [(path.name, line) for path in PAGES for line in lines(path)]
IN_HELP = [(" ".join(words), line) for words, command in VERBS for line in (command.epilog or "").split("\n\n")[1:]]


@pytest.mark.parametrize(("where", "line"), IN_BLOCKS + IN_HELP)
def test_commands_in_blocks_and_in_help_are_taken_by_the_command_line(where, line):
    if line.startswith("ferbench --"):
        assert line.split()[1] in BASIC
        return
    line = line.replace(r"\[", "[")
    given = parsed(line.split(" > ")[0])
    method = given.get("method") or ""
    if method and not method.endswith(".toml"):
        assert method in recipes.names()
        for preset in filter(None, (given.get("preset") or "").split(",")):
            assert preset in recipes.presets(method)
    dataset = given.get("dataset")
    if line.startswith("ferbench data prepare"):
        assert dataset in (*sources.NAMES, *SYNTHETIC)
    elif dataset and not dataset.endswith(".toml"):
        protocols.load(dataset)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_options_in_sentences_exist(path):
    for line in inline(path):
        words = shlex.split(line)[1:]
        command, rest = find(words)
        assert words[0].startswith("-") or command is not find([])[0], line
        own = {name for param in command.params for name in param.opts} | BASIC
        assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= own, line
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text(encoding="utf-8")))
    assert named - OPTIONS - FOREIGN - (set(options.RENAMED) if path.name == "CHANGELOG.md" else set()) == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_of_the_repository(path):
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_the_version_that_is_cited_is_the_one_that_is_there():
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.*)$", cited, re.MULTILINE)[1] == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_there_are_commands_to_test():
    assert len(IN_BLOCKS) > 60
    assert len(IN_HELP) > 30


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_of_code_can_be_read(path):
    for language, code in re.findall(
        r"^```(\w+)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        if language == "python":
            compile(code, path.name, "exec")
        elif language == "toml":
            tomllib.loads(code)


def test_the_example_of_the_api_is_the_one_that_is_run():
    page = (ROOT / "docs/python-api.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    run = [line[4:].split("  #")[0].rstrip() for line in api.__doc__.splitlines() if line.startswith((">>> ", "... "))]
    assert [line for line in code.splitlines() if line] == run
    (told,) = re.findall(r"^\d+\.\d\d% of .*$", api.__doc__, re.MULTILINE)
    assert f"`{told}`" in page


@pytest.mark.parametrize(("words", "command"), VERBS, ids=lambda one: " ".join(one) if isinstance(one, tuple) else "")
def test_every_verb_has_an_example_of_itself(words, command):
    first, *examples = command.epilog.split("\n\n")
    assert first.startswith("Example")
    assert examples
    assert all(one.startswith(f"ferbench {' '.join(words)}") for one in examples)


def test_verbs_are_in_panels():
    found = {command.rich_help_panel for words, command, _ in COMMANDS if len(words) == 1}
    assert found == {options.DATA, options.TRAIN, options.REPORT, options.SPEED, options.EVALUATE, options.OTHER}


def test_nothing_in_brackets_is_lost_from_help(tmp_path):
    assert "'ferbench[ray]'" in ferbench("train", "--help", cwd=tmp_path).stdout
    assert "[options] and [set]" in ferbench("sweep", "--help", cwd=tmp_path).stdout


def test_former_names_of_options_work_and_say_what_they_are_called_now(tmp_path):
    told = ferbench("report", "--readings", cwd=tmp_path, code=3).stderr
    assert "--readings is called --trials now" in told
    told = ferbench("check", "--accept", "--why=first", cwd=tmp_path, code=3).stderr
    assert "--why is called --reason now" in told
    told = ferbench("ablate", "--reading", "a.b=1", "--protocol-habits", "-d", "synth", cwd=tmp_path, code=2).stderr
    assert told.count(" now; ") == 2


@pytest.mark.parametrize("old", options.RENAMED)
def test_former_names_are_not_shown(old):
    assert old not in OPTIONS
    assert not any(old in text for _, command, texts in COMMANDS for text in (*texts, command.epilog or ""))


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("con", ["contamination"]),
        ("train lf", ["lfnet"]),
        ("train wslgan -d oul", ["oulu", "oulu-sequences"]),
        ("data prepare ja", ["jaffe"]),
        ("ablate --protocol", []),
        ("ablate --leak", ["--leakage"]),
    ],
)
def test_shells_complete_verbs_options_and_names(typed, offered):
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'ferbench'; from ferbench.cli.main import run; run()"],
        env={
            "_FERBENCH_COMPLETE": "complete_bash",
            "COMP_WORDS": f"ferbench {typed}",
            "COMP_CWORD": str(len(typed.split())),
            "PATH": "/usr/bin",
        },
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout.split() == offered


def test_the_site_is_built_without_a_broken_link_and_loads_nothing_from_another_host(tmp_path):
    pytest.importorskip("mkdocs")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", str(ROOT / "mkdocs.yml")]
    done = subprocess.run([*build, "-d", str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "reports/ckplus/index.html").is_file()
    assert "../reports/ckplus/" in (tmp_path / "results/index.html").read_text()


@pytest.mark.parametrize(
    ("name", "text", "fails"),
    [
        ("a.html", '<script src="https://example.org/a.js"></script>', True),
        ("a.html", '<link rel=stylesheet href="//example.org/a.css">', True),
        ("a.css", '@import "https://example.org/a.css";', True),
        ("a.css", "a{background:url(https://example.org/a.png)}", True),
        ("a.html", '<a href="https://example.org">here</a><img src="a.png">', False),
    ],
)
def test_what_is_loaded_from_another_host_fails_the_build(tmp_path, monkeypatch, name, text, fails):
    errors = pytest.importorskip("mkdocs.exceptions")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import hooks

    (tmp_path / name).write_text(text)
    if not fails:
        hooks.on_post_build({"site_dir": str(tmp_path)})
        return
    with pytest.raises(errors.PluginError, match="another host"):
        hooks.on_post_build({"site_dir": str(tmp_path)})
