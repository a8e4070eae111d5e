"""A small world to break: a prepared dataset of 36 images with landmarks, a protocol of two folds, runs under it, and the
program run in it, as a process of its own or within this one."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ferbench.data.prepare import write_set
from ferbench.data.samples import Aligned, Listing, Sample
from ferbench.runs.record import Identity
from ferbench.runs.store import Store, shipped_with

CLASSES = ("anger", "happiness", "surprise")
PROTOCOL = f"""name = "toy"
version = 1
description = "squares at three heights"
source = "the tests"
dataset = "toy"
classes = {list(CLASSES)}
preset = "tiny"
[folds]
rule = "step"
count = 2
"""
SEALED = ("record.json", "predictions.csv", "weights.safetensors", "history.csv")
SAME = SEALED[1:]  # of which all bytes are promised
EPOCHS = 3


def train(epochs: int = EPOCHS, *more: str) -> list[str]:
    """The words of a training of two folds whose networks learn to see the squares."""
    return [
        "train",
        "small-cnn",
        "--dataset",
        "toy.toml",
        "--epochs",
        str(epochs),
        "--set",
        "pretrain.batch=8",
        "--set",
        "finetune.batch=8",
        "--precision",
        "fp32",
        *more,
    ]


ALONE = ("--jobs", "1", "--threads", "1")
SHARED = ("--jobs", "2", "--threads", "2")
FLOOR = ["train", "largest-class", "--dataset", "toy.toml", *ALONE]


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, the last line that it said, and all that it said."""

    code: int
    line: str
    out: str
    err: str
    seconds: float = 0.0


def lay(place: Path) -> None:
    """Write the prepared dataset and the protocol. The set is as ``data prepare`` leaves it."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "toy.toml").write_text(PROTOCOL)
    rng = np.random.default_rng(0)

    def face(place_of: int) -> Callable[[], Aligned]:
        pixels = rng.integers(60, 120, (48, 48)).astype(np.uint8)
        pixels[4 + 14 * place_of : 16 + 14 * place_of, 18:30] = 230
        points = rng.normal(24, 8, (68, 2)).astype(np.float32)
        return lambda: Aligned(pixels, "drawn", points)

    samples = [
        Sample(f"P{s}_{label}_{frame}", "drawn", face(number), label, f"P{s}", f"P{s}_{label}", frame)
        for s in range(6)
        for number, label in enumerate(CLASSES)
        for frame in (1, 2)
    ]
    write_set(place / "data", "toy", "synth", "squares", Listing("drawn", samples))


def environment(place: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FERBENCH")}
    here = Path(__file__).resolve().parents[2]
    return {
        **kept,
        "FERBENCH_DATA": str(place / "data"),
        "FERBENCH_RUNS": str(place / "runs"),
        "COLUMNS": "240",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(here), kept.get("PYTHONPATH")))),
    }


def begin(words: Sequence[str], place: Path, before: Callable[[], None] | None = None, code: str = "", **more):
    """Start the program in a process of its own. before : called in it first. code : Python to run before it."""

    def ready() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs deaf to it
        if before is not None:
            before()

    start = ["-c", f"{code}\nfrom ferbench.cli.main import run\nrun()"] if code else ["-m", "ferbench"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | more
    return subprocess.Popen(
        [sys.executable, *start, *words], cwd=place, env=environment(place), text=True, preexec_fn=ready, **pipes
    )


def end(process: subprocess.Popen) -> Ended:
    start = time.monotonic()
    out, err = process.communicate(timeout=600)
    return _ended(process.returncode, out or "", err or "", time.monotonic() - start)


def ferbench(words: Sequence[str], place: Path, **more) -> Ended:
    """Run the program as a process of its own to its end."""
    return end(begin(words, place, **more))


def inside(words: Sequence[str], place: Path) -> Ended:
    """Run the program within this process, which saves the seconds that loading torch takes."""
    from ferbench.cli.main import _code

    out, err = io.StringIO(), io.StringIO()
    before, argv, folder = dict(os.environ), sys.argv, Path.cwd()
    start = time.monotonic()
    try:
        os.environ.update(environment(place))
        os.chdir(place)
        sys.argv = ["ferbench", *words]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = _code()
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)
        sys.argv = argv
    return _ended(code, out.getvalue(), err.getvalue(), time.monotonic() - start)


def _ended(code: int, out: str, err: str, seconds: float) -> Ended:
    said = [line.strip() for line in (err.strip() or out.strip()).splitlines() if line.strip()]
    return Ended(code, said[-1] if said else "", out, err, seconds)


def runs(place: Path) -> dict[str, Path]:
    """The folders of a place's runs by key."""
    return {path.parent.name: path.parent for path in sorted((place / "runs").glob("*/identity.json"))}


def stored(place: Path) -> dict[str, bytes]:
    """The promised bytes of all finished runs, by run and file."""
    return {
        f"{key}/{name}": (folder / name).read_bytes()
        for key, folder in runs(place).items()
        for name in SAME
        if (folder / "record.json").is_file() and (folder / name).is_file()
    }


def attention(place: Path) -> str:
    """Store the attention run of the package among the place's own, as training would have; returns its key."""
    (record, *_) = shipped_with(kind="attention", preset="tiny")
    store = Store(place / "runs")
    folder = store.begin(record.identity)
    for name in ("weights.safetensors", "history.csv"):
        shutil.copy(Store.holder(store, record.key).home / record.key / name, folder / name)
    store.finish(record)
    return record.key


def identity(place: Path, **values: str) -> Identity:
    """The identity of the first finished run with such values."""
    return next(
        record.identity
        for record in Store(place / "runs").records()
        if all(getattr(record.identity, name) == value for name, value in values.items())
    )


def truncate(path: Path) -> None:
    """Cut a file short, as a machine that loses its power may."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def flip(path: Path, share: float = 0.6, bit: int = 0) -> None:
    """Flip one bit, as a disk may."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 1 << bit
    path.write_bytes(bytes(content))


DAMAGES: dict[str, Callable[[Path], None]] = {"cut short": truncate, "one bit flipped": flip}


def at_work(place: Path) -> list[int]:
    """Processes of a place that are alive, found by their environment (Linux)."""
    found = []
    mark = f"FERBENCH_RUNS={place / 'runs'}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
            if alive and mark in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


def until(what: Callable[[], object], seconds: float = 120.0, step: float = 0.02) -> bool:
    """Wait until something holds; False where it does not in so many seconds."""
    last = time.monotonic() + seconds
    while not what():
        if time.monotonic() > last:
            return False
        time.sleep(step)
    return True


def checkpoints(place: Path) -> list[Path]:
    return sorted((place / "runs").glob("*/checkpoint/*.safetensors"))


@contextlib.contextmanager
def disk(place: Path, size: str) -> Iterator[bool]:
    """Put the runs of a place on a disk of that size; gives whether this machine allows it."""
    folder = place / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)
