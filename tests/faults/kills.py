"""kill -9 at random moments, start-up among them, again and again within one training, until it is done."""

import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from helpers import SHARED, at_work, begin, checkpoints, end, ferbench, lay, stored, train, until

from ferbench.errors import DataError
from ferbench.training.checkpoint import epochs_done


@dataclass
class Log:
    """What came of it. kills : seconds after each start, and epochs of both folds that were on disk then."""

    epochs: int
    seed: int
    kills: list[tuple[float, int]] = field(default_factory=list)
    code: int = -1
    same: bool = False
    files: int = 0
    orphans: int = 0
    seconds: float = 0.0


def killed(place: Path, count: int, epochs: int, seed: int = 0) -> Log:
    """Kill a training of two folds by two processes ``count`` times, then let it end, and compare with one undisturbed.

    Of three kills one falls anywhere in the start and two where epochs pass: after some seconds or some epochs, what
    comes first, so that the training lasts for all kills though the machine gets faster or slower meanwhile.
    """
    words, draw, log = train(epochs, *SHARED), random.Random(seed), Log(epochs, seed)
    lay(place / "whole")
    begun = time.monotonic()
    process = begin(words, place / "whole")
    until(lambda: checkpoints(place / "whole") or process.poll() is not None)
    start = time.monotonic() - begun
    assert end(process).code == 0
    training = time.monotonic() - begun - start
    lay(place / "killed")
    begun = time.monotonic()
    while len(log.kills) < count:
        early, more = draw.random() < 1 / 3, draw.uniform(0, 1.5 * 2 * epochs / count)
        wait = draw.uniform(0, start) if early else start + draw.uniform(0, 1.5 * training / count)
        before, begun_now = _epochs(place), time.monotonic()
        process = begin(words, place / "killed")
        until(lambda: not early and _epochs(place) >= before + more, wait)  # noqa: B023
        delay = time.monotonic() - begun_now
        if process.poll() is not None:  # it was done before: too few epochs for so many kills
            log.code = process.returncode
            end(process)
            break
        process.send_signal(signal.SIGKILL)
        end(process)
        log.orphans += not until(lambda: not at_work(place / "killed"), 5)
        log.kills.append((delay, _epochs(place)))
    log.code = ferbench(words, place / "killed").code
    log.seconds = time.monotonic() - begun
    whole, other = stored(place / "whole"), stored(place / "killed")
    log.same, log.files = whole == other, len(whole)
    return log


def _epochs(place: Path) -> int:
    """Epochs on disk; a checkpoint may go while it is looked at."""
    done = 0
    for path in checkpoints(place / "killed"):
        with suppress(OSError, DataError):
            done += epochs_done(path)
    return done
