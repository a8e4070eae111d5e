"""Text for a terminal: characters that its encoding lacks, messages of one line, durations."""

import codecs
import re
import unicodedata
from typing import Any

_HANDLER = "ferbench-degrade"
# ASCII text for the usual characters of tables and sentences. No double quotes or backslashes: JSON must stay JSON.
_ASCII = {
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


def make_readable(*streams: Any) -> None:
    """Let streams print a readable substitute for characters that their encoding lacks, instead of failing."""
    codecs.register_error(_HANDLER, _substitute)
    for stream in streams:
        if hasattr(stream, "reconfigure"):  # the streams of tests and notebooks may not have it
            stream.reconfigure(errors=_HANDLER)


def one_line(text: str) -> str:
    """Return a message without line breaks and other control characters."""
    return _CONTROL.sub(" ", text)


def duration(seconds: float) -> str:
    """Return a duration for people: ``75`` → ``1 min 15 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(character: str) -> str:
    """Return a character in ASCII: its usual substitute, else the letter without its accent, else a question mark."""
    if character in _ASCII:
        return _ASCII[character]
    letter = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return letter if letter.isalnum() else "?"
