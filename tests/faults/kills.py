"""kill -9 at random moments, start-up among them, again and again within one training, until it is done."""

import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from ground import SHARED, at_work, begin, checkpoints, end, ferbench, lay, stored, train, until

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

    Of three kills one falls anywhere in the start and two where epochs pass, so far apart that the training lasts.
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
        delay = draw.uniform(0, start) if draw.random() < 1 / 3 else start + draw.uniform(0, 1.5 * training / count)
        process = begin(words, place / "killed")
        time.sleep(delay)
        if process.poll() is not None:  # it was done before: too few epochs for so many kills
            log.code = process.returncode
            end(process)
            break
        process.send_signal(signal.SIGKILL)
        end(process)
        log.orphans += not until(lambda: not at_work(place / "killed"), 5)
        log.kills.append((delay, sum(map(epochs_done, checkpoints(place / "killed")))))
    log.code = ferbench(words, place / "killed").code
    log.seconds = time.monotonic() - begun
    whole, other = stored(place / "whole"), stored(place / "killed")
    log.same, log.files = whole == other, len(whole)
    return log
