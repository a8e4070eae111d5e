"""How processes end: soon after a signal, whatever they are at, and with the one that started them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from ferbench.errors import INTERRUPTED, one_line, refusal
from ferbench.processes import STOPPED

DEAF = """
import time
import ferbench.processes as processes
processes._GRACE = 0.3
processes.heed_signals()
while True:
    try:
        print("up", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        pass
"""
WITH_CHILD = """
import subprocess, sys, time
from ferbench.processes import child_environment
child = "from ferbench.processes import end_with_parent; import time; end_with_parent(); print('up', flush=True); time.sleep(60)"
process = subprocess.Popen([sys.executable, "-c", child], env=child_environment(), stdout=subprocess.PIPE, text=True)
process.stdout.readline()
print(process.pid, flush=True)
time.sleep(60)
"""
WITH_WORKER = """
import os, signal, sys, time
import ferbench.processes as processes
processes._GRACE = 0.3
processes.heed_signals()
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
worker = os.fork()
if not worker:
    time.sleep(60)
time.sleep(0.2)
os.kill(worker, signal.SIGTERM)
assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 7
time.sleep(0.8)
sys.exit(3)
"""

WITH_MAP = """
import os, sys, time
from ferbench.processes import map_in_order
results = map_in_order(lambda item: os.getpid(), range(10_000_000), 3)
print(*{next(results) for _ in range(48)}, flush=True)
time.sleep(60)
"""


def started(code: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_does_not_get_to_it_is_ended_all_the_same(number):
    process = started(DEAF)
    process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (INTERRUPTED, STOPPED)


def test_a_child_ends_when_its_parent_is_killed():
    parent = started(WITH_CHILD)
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.kill()
    parent.communicate(timeout=60)
    last = time.monotonic() + 30
    with pytest.raises(ProcessLookupError):  # noqa: PT012
        while time.monotonic() < last:
            os.kill(child, 0)
            time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere one process computes everything")
def test_processes_that_compute_end_when_their_parent_is_killed():
    parent = started(WITH_MAP)
    children = [int(word) for word in parent.stdout.readline().split()]
    assert len(children) == 3
    parent.kill()
    parent.communicate(timeout=60)  # returns when no child has the streams open any more
    assert parent.pid not in children


def test_a_signal_to_a_forked_worker_does_not_end_the_process():
    process = started(WITH_WORKER)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device", "a.csv"), "the disk is full while writing a.csv"),
        (OSError(27, "File too large"), "the disk is full while writing there"),
        (PermissionError(13, "Permission denied", "b"), "no permission for b"),
        (OSError(24, "Too many open files", "c"), "too many files are open (c)"),
        (OSError(12, "Cannot allocate memory"), "out of memory (OSError: [Errno 12]"),
        (MemoryError(), "out of memory (MemoryError)"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried\nand more"),
            "out of memory (RuntimeError: Def",
        ),
        (RuntimeError("shapes differ"), ""),
        (FileNotFoundError(2, "No such file", "d"), ""),
    ],
)
def test_what_a_machine_refuses_is_one_line(error, says):
    line = refusal(error, "there")
    assert line.startswith(says)
    assert bool(line) == bool(says)
    assert "\n" not in line + one_line(error)
