"""What happens to processes: signals, kills, two at once, full and read-only disks, too little memory, too few files, data
that goes away, a loss that is no number. Each scenario really does it in a place of its own and says how it ended."""

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from helpers import (
    ALONE,
    FLOOR,
    SHARED,
    Ended,
    at_work,
    begin,
    checkpoints,
    disk,
    end,
    ferbench,
    lay,
    stored,
    train,
    until,
)

from ferbench.runs.store import Store

LONG = 4000  # epochs that outlast any scenario
STOPPED = "the same command goes on"


@dataclass(frozen=True)
class Outcome:
    """A fault, the command that met it, how that ended, and whether it is what is promised."""

    fault: str
    command: str
    ended: Ended
    held: bool
    note: str = ""


def _clean(place: Path, ended: Ended) -> bool:
    """Nobody is left at work, no traceback was shown, nothing half-written lies about."""
    left = [path for path in (place / "runs").rglob(".*") if path.is_file() and path.name != ".lock"]
    return until(lambda: not at_work(place), 5) and "Traceback" not in ended.err and not left


def _told(number: int, shared: bool) -> Callable[[Path], list[Outcome]]:
    def scenario(place: Path) -> list[Outcome]:
        lay(place)
        words = train(LONG, *(SHARED if shared else ALONE))
        process = begin(words, place)
        assert until(lambda: len(checkpoints(place)) >= 1 + shared or process.poll() is not None)
        start = time.monotonic()
        process.send_signal(number)
        ended = end(process)
        seconds = time.monotonic() - start
        kept = bool(checkpoints(place))
        more = [word if word != str(LONG) else "3" for word in words]
        quick = seconds <= 5
        # The promise is 5 s, and is written down; a test on a machine that is busy with others holds no clock.
        held = ended.code == 130 and STOPPED in ended.line and kept and seconds <= 20 and _clean(place, ended)
        again = ferbench(more, place)
        name = f"{signal.Signals(number).name}{', two processes at work' if shared else ''}"
        return [
            Outcome(
                name,
                "train",
                ended,
                held,
                f"{'within 5' if quick else f'after {seconds:.1f}'} s; checkpoint {'kept' if kept else 'lost'}",
            ),
            Outcome(f"after {name}", "train", again, again.code == 0),
        ]

    return scenario


def early(place: Path) -> list[Outcome]:
    """A signal while the program is loading."""
    lay(place)
    found = []
    for delay in (0.5, 1.5):
        process = begin(train(LONG, *SHARED), place)
        time.sleep(delay)
        process.terminate()
        ended = end(process)
        held = ended.code in (130, -signal.SIGTERM) and ended.seconds <= 20 and _clean(place, ended)
        found.append(Outcome(f"SIGTERM after {delay} s", "train", ended, held, "before or after it heeds signals"))
    return found


def orphans(place: Path) -> list[Outcome]:
    """kill -9 of the process that was started; its partner must not work on alone."""
    lay(place)
    process = begin(train(LONG, *SHARED), place)
    assert until(lambda: len(checkpoints(place)) == 2 or process.poll() is not None)
    assert len(at_work(place)) == 2
    process.kill()
    ended = end(process)
    gone = until(lambda: not at_work(place), 5)
    return [
        Outcome(
            "kill -9, two processes at work",
            "train",
            ended,
            gone and ended.code == -9,
            "the partner ended by itself" if gone else "the partner worked on",
        )
    ]


def partner_killed(place: Path) -> list[Outcome]:
    """kill -9 of a partner: the other does its fold too."""
    lay(place)
    process = begin(train(150, *SHARED), place)
    assert until(lambda: len(at_work(place)) == 2 or process.poll() is not None)
    for other in set(at_work(place)) - {process.pid}:
        os.kill(other, signal.SIGKILL)
    ended = end(process)
    done = len(Store(place / "runs").records())
    return [Outcome("kill -9 of a partner", "train", ended, (ended.code, done) == (0, 2) and _clean(place, ended))]


def two_at_once(place: Path) -> list[Outcome]:
    """The same command twice at the same moment, on data that is not drawn yet."""
    lay(place)
    words = train(40, *ALONE)
    alone = ferbench(words, place)
    whole = stored(place)
    shutil.rmtree(place / "runs")
    processes = [begin(words, place) for _ in range(2)]
    both = [end(process) for process in processes]
    same = stored(place) == whole and len(whole) > 0 and alone.code == 0
    found = [Outcome("another process makes the same runs", "train", one, one.code == 0 and same) for one in both]
    processes = [begin(["data", "show", "synth"], place) for _ in range(2)]
    found += [
        Outcome("another process draws the same set", "data show", one, one.code == 0) for one in map(end, processes)
    ]
    return found


def _at_most(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def files_limited(place: Path) -> list[Outcome]:
    """No file may be larger than so many bytes: what a full disk is like, wherever a machine lets nobody mount one."""
    lay(place)
    words, found = train(3, *ALONE, "--folds", "01"), []
    for size in (10, 2000, 100_000):
        ended = ferbench(words, place, before=_at_most(size))
        held = ended.code == 3 and "the disk is full while writing" in ended.line and _clean(place, ended)
        found.append(Outcome(f"files of at most {size:,} bytes", "train", ended, held))
    done = ferbench(words, place)
    found.append(Outcome("after that, room again", "train", done, done.code == 0))
    key = Store(place / "runs").records()[0].key
    for name, command in (
        ("report --out", ["report", "--format", "html", "--out", "page.html"]),
        ("protocol export", ["protocol", "export", "toy.toml", "--out", "folds.csv"]),
        ("export", ["export", key, "--out", "model.onnx"]),
        ("data synth", ["data", "synth", "fer2013", "--out", "drawn", "--subjects", "1"]),
        ("data prepare", ["data", "prepare", "synth"]),
        ("maps --out", ["maps", "--dataset", "toy", "--out", "figures"]),
    ):
        before = sorted(place.iterdir())
        ended = ferbench(command, place, before=_at_most(1000))
        left = [path for path in set(place.iterdir()) - set(before) if path.is_file()]
        held = ended.code == 3 and "the disk is full while writing" in ended.line and not left and _clean(place, ended)
        found.append(Outcome("files of at most 1,000 bytes", name, ended, held))
    with open("/dev/full", "w") as full:
        ended = end(begin(["report"], place, stdout=full))
    found.append(Outcome("stdout on a full disk", "report", ended, ended.code == 3 and "disk is full" in ended.line))
    return found


def disk_full(place: Path) -> list[Outcome]:
    """Runs on small disks of several sizes, then on one that suffices; empty where nobody may mount one here."""
    lay(place)
    words, found = train(3, *ALONE), []
    whole = ferbench(words, place)
    want = stored(place)
    shutil.rmtree(place / "runs")
    for size in ("16k", "256k"):
        with disk(place, size) as mounted:
            if not mounted:
                return []
            ended = ferbench(words, place)
            held = ended.code == 3 and "the disk is full while writing" in ended.line and _clean(place, ended)
            subprocess.run(["mount", "-o", "remount,size=64m", str(place / "runs")], check=True)
            again = ferbench(words, place)
            same = again.code == 0 and stored(place) == want and whole.code == 0
        if ended.code == 0:  # it fitted
            break
        found += [Outcome(f"a disk of {size}", "train", ended, held), Outcome("the disk grows", "train", again, same)]
    return found


def _without_override() -> None:
    """Root may write anywhere unless it gives that up (CAP_DAC_OVERRIDE is 1, PR_CAPBSET_DROP is 24)."""
    if os.geteuid() == 0:
        import ctypes

        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


def read_only(place: Path) -> list[Outcome]:
    """Runs in a folder that nobody may write to."""
    lay(place)
    assert ferbench(FLOOR, place).code == 0
    folders = [place / "runs", *(path for path in (place / "runs").iterdir() if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    found = []
    try:
        for name, words, code in (
            ("report", ["report"], 0),
            ("runs", ["runs"], 0),
            ("train", train(3, *ALONE), 3),
            ("evaluate", ["evaluate", "--dataset", "toy.toml"], 3),
            ("report --out", ["report", "--format", "json", "--out", "runs/report.json"], 3),
        ):
            ended = ferbench(words, place, before=_without_override)
            held = (
                ended.code == code and (code == 0 or "no permission for" in ended.line) and "Traceback" not in ended.err
            )
            found.append(Outcome("a read-only folder of runs", name, ended, held))
    finally:
        for folder in folders:
            folder.chmod(0o755)
    return found


def data_gone(place: Path) -> list[Outcome]:
    """The prepared dataset is deleted while a training runs, and is missing when it is started again."""
    lay(place)
    words = train(150, *ALONE)
    process = begin(words, place)
    assert until(lambda: checkpoints(place) or process.poll() is not None)
    shutil.rmtree(place / "data")
    ended = end(process)
    first = Outcome(
        "the prepared dataset is deleted in mid-run", "train", ended, ended.code == 0, "what is open stays readable"
    )
    again = ferbench(words, place)
    held = again.code == 3 and "is not prepared" in again.line
    return [first, Outcome("the prepared dataset is not there", "train", again, held)]


_LITTLE = """
import resource, torch
torch.set_num_threads(1)
import ferbench.cli.main, ferbench.execution.run_job, ferbench.execution.session, ferbench.methods.cnn, numpy, pandas, sklearn
def memory():
    now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + ({} << 20),) * 2)
memory()
"""


def memory(place: Path) -> list[Outcome]:
    """So little memory that a training of large layers does not fit; another method goes on beside it."""
    lay(place)
    large = ["--set", "network.widths=[16,32,4096]", "--set", "network.hidden=16384"]
    ended = ferbench(train(3, *ALONE, *large), place, code=_LITTLE.format(400))
    records = Store(place / "runs").records()
    told = {record.error for record in records}
    held = ended.code == 4 and len(records) == 2 and all("out of memory" in error for error in told)
    return [Outcome("400 MB of memory for layers of 4 GB", "train", ended, held, next(iter(told), ""))]


def few_files(place: Path) -> list[Outcome]:
    """Few files may be open at a time."""
    found = []
    for limit in (6, 24):
        folder = place / str(limit)
        lay(folder)
        ended = ferbench(
            train(3, *ALONE), folder, before=lambda most=limit: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        )
        told = ended.code in (3, 4) and ("too many files are open" in ended.err + ended.out or "failed" in ended.line)
        found.append(
            Outcome(f"{limit} open files", "train", ended, (ended.code == 0 or told) and "Traceback" not in ended.err)
        )
    return found


def no_number(place: Path) -> list[Outcome]:
    """A learning rate under which the loss overflows: the job fails and is no figure; a floor beside it stands."""
    lay(place)
    ended = ferbench(train(3, *ALONE, "--set", "pretrain.lr=1e30", "--set", "finetune.lr=1e30"), place)
    records = Store(place / "runs").records()
    told = {record.error for record in records}
    held = ended.code == 4 and len(records) == 2 and all("in epoch" in error for error in told)
    floor = ferbench(FLOOR, place)
    report = ferbench(["report", "--format", "markdown"], place)
    return [
        Outcome("a loss that is no number", "train", ended, held, next(iter(told), "")),
        Outcome("failed runs in the store", "train", floor, floor.code == 0),
        Outcome("failed runs in the store", "report", report, report.code == 0 and "in epoch" in report.out),
    ]


SCENARIOS: dict[str, Callable[[Path], list[Outcome]]] = {
    "ctrl-c": _told(signal.SIGINT, False),
    "sigterm": _told(signal.SIGTERM, False),
    "sigint-shared": _told(signal.SIGINT, True),
    "sigterm-shared": _told(signal.SIGTERM, True),
    "sigterm-early": early,
    "orphans": orphans,
    "partner-killed": partner_killed,
    "two-at-once": two_at_once,
    "files-limited": files_limited,
    "disk-full": disk_full,
    "read-only": read_only,
    "data-gone": data_gone,
    "memory": memory,
    "few-files": few_files,
    "no-number": no_number,
}
