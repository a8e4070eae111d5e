"""Makes damaged and hostile files out of good ones. All chance comes from the generator that is given."""

import json
import random
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

OUTSIDE = "../../outside/secret"  # a file that lies beside the folder of a case: whoever opens it has been led out

# What hurts readers of text: numbers, nesting, formulas, markup, control sequences, paths, encodings.
TOKENS = [
    b"NaN",
    b"Infinity",
    b"-1e999",
    b"1e-999",
    b"-0",
    b"0x1F",
    b"9" * 30,
    b"9" * 6000,
    b"18446744073709551616",
    b"-1",
    b"null",
    b"true",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"[[" * 400 + b"]]" * 400,
    b'"',
    b"'",
    b'"""',
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\\u001b]0;x\\u0007",
    b"\x1b[31m",
    b"\x9b2J",
    b"\xe2\x80\xae",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r",
    b"\r\n",
    b"\n",
    b",",
    b";",
    b"\t",
    b"=cmd|' /C calc'!A0",
    b"@SUM(1)",
    b"+1+1",
    b"<script>alert(1)</script>",
    b"'\"><img src=x onerror=alert(1)>",
    b"[red]",
    b"[/]",
    b"$x_{$",
    b"{{7*7}}",
    b"%s%n",
    b"](http://x.y)",
    b"|",
    OUTSIDE.encode(),
    b"/etc/passwd",
    b"..\\..\\outside",
    b"file:///etc/passwd",
    b"C:\\x",
    b"a" * 70000,
    b"e",
    b".",
    b"=",
    b"[a]\n",
    b"[[a]]\n",
    b"a.b.c = 1\n",
    b'extends = "own"\n',
    b"1979-05-27T07:32:00Z",
    "é".encode("latin-1"),
]
_WORD = re.compile(rb"[A-Za-z0-9_.+-]+|\S")

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**63,
    2**64 - 1,
    0.5,
    -1.5,
    1e308,
    "",
    "a",
    "\x1b[2J\x1b]0;x\x07",
    "a\nb\r::error::c",
    "\u202egnp",
    "\ud800",
    "<script>alert(1)</script>",
    "[red]x[/red]",
    "[/]",
    "$\\frac{",
    "=cmd|' /C calc'!A0",
    OUTSIDE,
    "/etc/passwd",
    "a/b",
    "..",
    "x" * 5000,
    "ferbench x; rm -rf /",
    "`x` | y",
    "](http://x.y)",
    [],
    {},
    [[]],
    [None],
    ["a", "a"],
    {"a": 1},
    {"": {}},
    [1, "a", None],
    ["\x9b31m"],
    "anger",
    "image",
    "sequence",
    "unknown",
]


def damaged(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Return a file with one to eight changes: flips, cuts, copies, parts of other files, hostile tokens."""
    made = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 8))):
        at, end = sorted((rng.randint(0, len(made)), rng.randint(0, len(made))))
        end = min(end, at + rng.choice((1, 4, 16, 64, 1024, 1 << 20)))
        way = rng.randrange(10)
        if way == 0 and made:
            made[at % len(made)] ^= 1 << rng.randrange(8)
        elif way == 1 and made:
            made[at % len(made)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif way == 2:
            del made[at:end]
        elif way == 3:
            del made[at:]
        elif way == 4:
            made[at:at] = made[at:end] * rng.choice((1, 2, 50 if end - at < 200 else 2))
        elif way == 5 and others:
            other = rng.choice(others)
            start = rng.randint(0, len(other))
            made[at:end] = other[start : start + rng.choice((4, 64, 4096))]
        elif way == 6:
            made[at:end] = rng.choice(TOKENS)
        elif way == 7:
            made[at:at] = rng.choice(TOKENS)
        elif way == 8 and made:
            words = list(_WORD.finditer(made[:200_000]))
            if words:
                word = rng.choice(words)
                made[word.start() : word.end()] = rng.choice((b"", rng.choice(TOKENS), word.group() * 2))
        elif way == 9 and len(made) > 8:
            width = rng.choice((1, 2, 4, 8))
            place = rng.randrange(len(made) - width)
            made[place : place + width] = rng.choice(
                (0, 1, (1 << 8 * width) - 1, 1 << (8 * width - 1), 0x10000 % (1 << 8 * width))
            ).to_bytes(width, rng.choice(("little", "big")))
    return bytes(made)


def changed(content: Any, rng: random.Random) -> Any:
    """Return a JSON value with one to four of its parts replaced, dropped, doubled or renamed."""
    made = json.loads(json.dumps(content))
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = list(_places(made))
        if not places:
            return _value(rng)
        holder, key = rng.choice(places)
        way = rng.randrange(6)
        if way <= 2:
            holder[key] = _value(rng)
        elif way == 3:
            del holder[key]
        elif way == 4:
            other, name = rng.choice(places)
            holder[key] = json.loads(json.dumps(other[name])) if _has(other, name) else None
        elif isinstance(holder, dict):
            holder[str(rng.choice(VALUES))[:50]] = holder.pop(key)
        else:
            holder.insert(key, _value(rng))
    return made


def _value(rng: random.Random) -> Any:
    return deepcopy(rng.choice(VALUES))


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def _places(value: Any) -> Any:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


Mutator = Callable[[bytes, list[bytes], random.Random], bytes]


def json_too(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Change a JSON file as text, or as what it says."""
    if rng.random() < 0.4:
        return damaged(content, others, rng)
    made = json.dumps(changed(json.loads(content), rng), ensure_ascii=rng.random() < 0.5)
    return made.encode("utf-8", "surrogatepass")


def table_too(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Change a CSV file as text, or cell by cell: other values, rows and columns lost, doubled or out of order."""
    if rng.random() < 0.4:
        return damaged(content, others, rng)
    rows = [line.split(b",") for line in content.splitlines()]
    for _ in range(rng.choice((1, 1, 2, 4))):
        row = rng.choice(rows)
        way = rng.randrange(8)
        if way <= 2 and row:
            row[rng.randrange(len(row))] = rng.choice([token for token in TOKENS if len(token) < 100])
        elif way == 3 and row:
            row[rng.randrange(len(row))] = rng.choice(rng.choice(rows) or [b""])
        elif way == 4 and len(rows) > 1:
            rows.remove(row)
        elif way == 5:
            rows.insert(rng.randrange(len(rows) + 1), list(row))
        elif way == 6:
            column = rng.randrange(max(map(len, rows)) or 1)
            for one in rows:
                del one[column : column + 1]
        else:
            column = rng.randrange(max(map(len, rows)) or 1)
            for one in rows:
                one.append(one[column] if column < len(one) else b"")
    return b"\n".join(b",".join(row) for row in rows) + b"\n"
