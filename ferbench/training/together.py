"""Several trainings of one run, in a thread each."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import TypeVar

import torch

from ferbench.training.loop import Progress

T = TypeVar("T")


class Dismissed(BaseException):
    """Unwinds a thread whose training is no longer wanted. No Exception, so that its job is not recorded as a failed
    one."""


def together(count: int, at_once: int, threads: int, train: Callable[[int, Progress], T], report: Progress) -> list[T]:
    """Return what the trainings 0 to ``count`` - 1, of equal weight, give; so many at a time.

    threads : of the CPU that each takes where several run at a time. train : gets its number and a progress report
    that it has to call at every step: there it is ended by Ctrl-C, or by an error of one before it.
    """
    steps, dismissed, turn = [0] * count, Event(), Lock()

    def own(number: int) -> Progress:
        def told(done: int, total: int, text: str) -> None:
            if dismissed.is_set():
                raise Dismissed
            with turn:
                steps[number] = done
                report(sum(steps), count * total, text)

        return told

    if at_once == 1:
        return [train(number, own(number)) for number in range(count)]

    def trained(number: int) -> T:
        torch.set_num_threads(threads)  # OpenMP keeps the number for each thread apart
        return train(number, own(number))

    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(trained, number) for number in range(count)]
        try:
            return [future.result() for future in futures]
        except BaseException:
            dismissed.set()
            raise
