"""Runs the command line in tests."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from typer.testing import CliRunner

from ferbench.cli.main import app
from support import forked

SMALL = [
    "--set",
    "attention.epochs=1",
    "--set",
    "pretrain.epochs=1",
    "--epochs",
    "1",
    "--threads",
    "1",
    "--set",
    "architecture.growth=4",
    "--set",
    "architecture.generator_layers=[1,1,1]",
    "--set",
    "architecture.extractor_layers=[1,1,1]",
    "--set",
    "architecture.reduction=4",
]


def ferbench(*words: str, cwd: Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess:
    """Run the command in a folder with its own data and runs, and check the exit code."""
    env = {
        **os.environ,
        "FERBENCH_DATA": str(cwd / "data"),
        "FERBENCH_RUNS": str(cwd / "runs"),
        "COLUMNS": "200",
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    done = forked.run(*words, cwd=cwd, environment=env)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def output(*words: str) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False, standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.output


_WATCHED = """
import collections, json, os, sys
opened = collections.Counter()
watch = os.path.realpath(sys.argv.pop(1))
def heard(event, given):
    if event == "open" and isinstance(given[0], str) and os.path.realpath(given[0]).startswith(watch):
        opened[os.path.relpath(os.path.realpath(given[0]), watch)] += 1
sys.addaudithook(heard)
from ferbench.cli.main import run
try:
    run()
except SystemExit as end:
    code = end.code
print(json.dumps([opened, [name for name in ("torch", "matplotlib") if name in sys.modules]]), file=sys.stderr)
sys.exit(code)
"""


def watched(folder: Path, *words: str, cwd: Path) -> tuple[Counter[str], list[str]]:
    """Run ``ferbench`` and return how often it opened each file below ``folder``, and what it loaded of torch and
    matplotlib: what makes it slow or quick, on any machine."""
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, str(folder), *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "FERBENCH_RUNS": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    opened, loaded = json.loads(done.stderr.splitlines()[-1])
    return Counter(opened), loaded
