"""The wording of README, docs/, help texts, reports and messages: terms of the field, sentences of a length that is read at
once."""

import ast
import re
import tomllib

import pytest
from conftest import ROOT
from support.help_texts import commands

STYLE = tomllib.loads((ROOT / "tests/words.toml").read_text(encoding="utf-8"))
AVOID = {re.compile(rf"\b{pattern}\b", re.IGNORECASE): instead for pattern, instead in STYLE["avoid"].items()}
PAGES = sorted(path for pattern in STYLE["files"] for path in ROOT.glob(pattern))
SOURCES = sorted(path for pattern in STYLE["sources"] for path in ROOT.glob(pattern))
HELPS = {" ".join(words): texts for words, _, texts in commands()}


def prose(markdown: str) -> str:
    """What a reader reads: no code, no links' targets, no pictures' addresses."""
    text = re.sub(r"^( *)```.*?^\1```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"(^|\n\n)((    .*(\n|$))+)", "\n\n", text)
    text = re.sub(r"`[^`]*`", "CODE", text)
    return re.sub(r"\]\([^)]*\)", "]", text)


def sentences(text: str) -> list[str]:
    """Sentences of paragraphs and of items of lists; rows of tables are none."""
    found = []
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.|:) )", text):
        if not paragraph.lstrip().startswith(("|", "#")):
            found += re.split(r"(?<=[.!?:;])\s+", " ".join(paragraph.split()))
    return found


def avoided(text: str) -> list[str]:
    return [f"{found[0]!r}: write {instead}" for pattern, instead in AVOID.items() for found in pattern.finditer(text)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_use_the_terms_of_the_field(path):
    assert not avoided(prose(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_sentences_are_short(path):
    found = sentences(prose(path.read_text(encoding="utf-8")))
    assert not [one for one in found if len(one.split()) > STYLE["longest_sentence"]]


@pytest.mark.parametrize("verb", HELPS)
def test_help_texts_use_the_terms_of_the_field(verb):
    assert not [found for text in HELPS[verb] for found in avoided(re.sub(r"`[^`]*`", "", text))]


def printed(code: str) -> list[str]:
    """The texts in a module that may be shown: strings of several words, an f-string as one, without docstrings."""
    tree = ast.parse(code)
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "CODE" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (statements | parts):
            found.append(node.value)
    return [re.sub(r"`[^`]*`", "CODE", text) for text in found if " " in text.strip()]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_reports_and_messages_use_the_terms_of_the_field(path):
    text = path.read_text(encoding="utf-8")
    texts = printed(text) if path.suffix == ".py" else re.findall(r">([^<>{}]+)<", text)
    assert not [found for text in texts for found in avoided(text)]


def test_what_is_printed_is_found_and_docstrings_names_and_code_are_not():
    code = '"""No habits here."""\nNAME = "habits"\nprint(f"two {n} habits", "run `ferbench x --readings` now")'
    assert printed(code) == ["two CODE habits", "run CODE now"]


def test_what_is_to_be_avoided_is_found_and_code_is_not():
    assert avoided("It was held against its peers.")
    assert not avoided(prose("Use `--readings`.\n\n    ferbench report --readings\n\n```text\nhabits\n```\n"))
    assert max(len(one.split()) for one in sentences("word " * 40 + ".\n\n| " + "cell " * 60 + "|")) >= 40


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
