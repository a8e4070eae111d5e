"""Hostile texts: control sequences, markup of every kind."""

import re

NASTY = (
    "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp\r::error::x [red]red[/red] [/] | <script>alert(1)</script> "
    "[a](http://x.y) `b` $\\frac{$"
)
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
