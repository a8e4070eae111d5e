"""Text from other people's files, made safe to show: it cannot control a terminal, a page or a spreadsheet."""

import re
import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

# What a terminal executes instead of showing it (ECMA-48): CSI … final; OSC, DCS, SOS, PM, APC up to their end; ESC and
# one more; each also in its form of a single C1 character.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_BREAK = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
# The rest of C0 and C1; marks and overrides of direction, which reorder the text on screen; invisible tags.
_UNSEEN = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f"
_HIDDEN = re.compile(f"[{_UNSEEN}]")
_LONE = re.compile("[\ud800-\udfff]")  # halves of a character, which no stream can encode
SUSPECT = re.compile(f"[{_UNSEEN}\ud800-\udfff]")

_MAYBE = re.compile(rb"\\|\x7f|::|##\[")
_COMMAND = re.compile(r"((?<!\S):|#)(:\w|#\[)")

_CODE = re.compile(r"(?<!`)(`+)(?!`)(?:.+?)(?<!`)\1(?!`)")  # as CommonMark pairs backticks
_NUMBER = re.compile(r"[-+][\d.,]+( ?%)?( (±|to) [-+]?[\d.,]+)?( \([-–+\d., ]+\))?")


def printable(text: str) -> str:
    """Return a text as one line without control sequences and without changes of text direction."""
    if SUSPECT.search(text):
        text = _LONE.sub("\ufffd", _HIDDEN.sub("", _BREAK.sub(" ", _SEQUENCE.sub("", text))))
    if "::" in text or "##[" in text:  # at the beginning of a line, a build service takes these for a command
        text = _COMMAND.sub(r"\1 \2", text)
    return text


def is_plain(json: bytes) -> bool:
    """Whether no text in these bytes of JSON, which has no control characters but as escapes, needs cleaning: a quick
    look, for files by the thousand, that may say no in vain."""
    return json.isascii() and not _MAYBE.search(json)


def cleaned(content: Any) -> Any:
    """Return a JSON value with every text in it, names of fields too, made :func:`printable`."""
    if isinstance(content, str):
        return printable(content)
    if isinstance(content, dict):
        return {printable(name): cleaned(value) for name, value in content.items()}
    if isinstance(content, list):
        return [cleaned(value) for value in content]
    return content


def markdown(text: str, cell: bool = False) -> str:
    """Return a text for Markdown, in which it is neither HTML nor a link nor, as a ``cell``, the end of one.

    What stands between backticks stays code.
    """
    text, parts, end = printable(text), [], 0
    for code in _CODE.finditer(text):
        # A backslash before a bar would undo the bar's escape.
        parts += [_unmarked(text[end : code.start()]), re.sub(r"\\+\|", "|", code[0]) if cell else code[0]]
        end = code.end()
    escaped = "".join([*parts, _unmarked(text[end:])])
    return escaped.replace("|", r"\|") if cell else escaped


def _unmarked(text: str) -> str:
    text = text.replace("\\", r"\\").replace("<", "&lt;")
    text = re.sub(r"&(?=#?\w+;)(?!lt;)", "&amp;", text)
    text = re.sub(r"\](?=[(\[:])", r"]\\", text)  # of a link or its definition
    return re.sub(r"(?i)(?<=\bwww)\.", r"\.", text.replace("://", r":\//"))  # that becomes a link by itself


def spreadsheet(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: what begins like one, and is no number, gets an
    apostrophe, which spreadsheets hide."""
    text = printable(text).strip()
    formula = text.startswith(tuple("=@＝＠＋－")) or (text.startswith(("+", "-")) and not _NUMBER.fullmatch(text))
    return f"'{text}" if formula else text


def suggestion(name: str, known: Iterable[str], aliases: Iterable[str] = ()) -> str:
    """Return how a message goes on after a name that does not exist: the most similar known name, then all of them.

    aliases : further accepted spellings, which are suggested but not listed.
    """
    names = list(known)
    near = get_close_matches(name, [*names, *aliases], n=1)
    return f"{f'; did you mean {near[0]}?' if near else '.'} There are: {', '.join(names) or 'none'}"


def command(text: str) -> str:
    """Return a stored command line as it may be pasted into a shell: one ``ferbench`` with plain words, or nothing."""
    try:
        words = shlex.split(text)
    except ValueError:
        return ""
    return shlex.join(words) if words[:1] == ["ferbench"] and "`" not in text else ""
