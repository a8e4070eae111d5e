"""Text on streams that cannot show every character, and error messages that stay one line."""

import codecs
import re
import unicodedata
from typing import Any

_HANDLER = "ferbench-degrade"
# What the usual characters of tables and sentences become. Neither quotes nor backslashes: JSON must stay JSON.
_PLAIN = {
    "×": "x",
    "±": "+-",
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    "→": "->",
    "←": "<-",
    "·": ".",
    "•": "*",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "√": "sqrt",
    "“": "'",
    "”": "'",
    "‘": "'",
    "’": "'",
    "µ": "u",
    "σ": "sd",
    "Δ": "d",
    "▸": ">",
    "✓": "+",
    "✗": "-",
    "━": "-",
    "─": "-",
    "│": "|",
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def on(*streams: Any) -> None:
    """Let these streams show something readable for what their encoding lacks, instead of failing."""
    codecs.register_error(_HANDLER, _degraded)
    for stream in streams:
        if hasattr(stream, "reconfigure"):  # not where a test or a notebook has put its own
            stream.reconfigure(errors=_HANDLER)


def one_line(text: str) -> str:
    """Return a message without line breaks and without whatever else moves a terminal's cursor."""
    return _CONTROL.sub(" ", text)


def _degraded(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    """A character in ASCII: its usual stand-in, else the letter below its accent, else a question mark."""
    if character in _PLAIN:
        return _PLAIN[character]
    letter = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return letter if letter.isalnum() else "?"
