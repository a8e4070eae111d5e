"""Index plans by class and person: which images share a step, and which of them are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ferbench.seeds import generator
from ferbench.training.augment import DERIVED
from ferbench.training.plan import Step, steps

_NONE = np.empty(0, dtype=np.int64)
KINDS = tuple((expression, person) for expression in (True, False) for person in (True, False))  # the same, or another


def grouped_epoch(labels: np.ndarray, augment: str, batch: int, members: int, seed: int, epoch: int) -> list[Step]:
    """Plan an epoch of steps that hold few classes with many images each.

    labels : [N]. members : rows of a class that are wanted in a step; as many classes share a step as have room for
    so many, at least one. Classes are drawn by their share of the images, an image comes again when all of its class
    have had their turn.
    """
    rng = generator(seed, "epoch", epoch)
    names, counts = np.unique(labels, return_counts=True)
    together = min(len(names), max(1, batch // members))
    each = batch // together
    queues = {name: _Queue(np.flatnonzero(labels == name), rng) for name in names}
    plan = []
    for _ in range(steps(len(labels), augment, batch)):
        chosen = rng.choice(names, together, replace=False, p=counts / counts.sum())
        images = np.concatenate([queues[name].next(each) for name in chosen])
        plan.append(Step(images, _derived(len(images), augment, rng), 1, _NONE, _NONE))
    return plan


def pair_epoch(labels: np.ndarray, people: np.ndarray, augment: str, batch: int, seed: int, epoch: int) -> list[Step]:
    """Plan an epoch of pairs, ``batch`` rows a step: the first members are the first half of the rows, the second
    members the other. A quarter of the pairs are of each of :data:`KINDS`.

    labels, people : [N]. Where an image has no partner of the kind that was drawn, any person will do, and where
    no image has that expression either, any image.
    """
    rng = generator(seed, "epoch", epoch)
    half = max(1, batch // 2)
    queue = _Queue(np.arange(len(labels)), rng)
    plan = []
    for _ in range(steps(len(labels), augment, batch)):
        first = queue.next(half)
        second = np.array([_partner(image, labels, people, KINDS[rng.integers(len(KINDS))], rng) for image in first])
        rows = np.concatenate([first, second])
        plan.append(Step(rows, _derived(len(rows), augment, rng), 1, np.arange(half), np.arange(half, 2 * half)))
    return plan


def tuplet_epoch(
    labels: np.ndarray, people: np.ndarray, positives: int, augment: str, batch: int, seed: int, epoch: int
) -> list[Step]:
    """Plan an epoch of (N+M) tuplets, whole ones as long as a step has no more than ``batch`` rows, at least one.

    Of each query: ``positives`` images of its class, of different people and not its own, fewer where there are no
    more; and of each other class that its person shows one image, none where there is none.
    ``first`` are all rows of a step, ``second`` the row of each one's query.
    """
    rng = generator(seed, "epoch", epoch)
    queue = _Queue(np.arange(len(labels)), rng)
    waiting = _tuplet(int(queue.next(1)[0]), labels, people, positives, rng)
    plan = []
    for _ in range(steps(len(labels), augment, batch)):
        rows, queries = [waiting], [np.zeros(len(waiting), dtype=np.int64)]
        total = len(waiting)
        while total + len(waiting := _tuplet(int(queue.next(1)[0]), labels, people, positives, rng)) <= batch:
            rows.append(waiting)
            queries.append(np.full(len(waiting), total))
            total += len(waiting)
        images = np.concatenate(rows)
        plan.append(Step(images, _derived(total, augment, rng), 1, np.arange(total), np.concatenate(queries)))
    return plan


def shifted(plan: Callable[[int], list[Step]], most: float, seed: int) -> Callable[[int], list[Step]]:
    """The plan with each row shifted at random, by ``most`` sides of the image at most along both axes."""

    def moved(step: Step, rng: np.random.Generator) -> Step:
        shifts = rng.uniform(-most, most, (len(step.images), 2))
        return replace(step, moves=np.column_stack([np.ones(len(shifts)), shifts]).astype(np.float32))

    def planned(epoch: int) -> list[Step]:
        rng = generator(seed, "epoch", epoch)
        return [moved(step, rng) for step in plan(epoch)]

    return planned


class _Queue:
    """Gives rows in a random order, and in another one when all have had their turn."""

    def __init__(self, rows: np.ndarray, rng: np.random.Generator):
        self.rows, self.rng, self.left = rows, rng, _NONE

    def next(self, count: int) -> np.ndarray:
        while len(self.left) < count:
            self.left = np.concatenate([self.left, self.rng.permutation(self.rows)])
        taken, self.left = self.left[:count], self.left[count:]
        return taken


def _partner(
    image: int, labels: np.ndarray, people: np.ndarray, kind: tuple[bool, bool], rng: np.random.Generator
) -> int:
    others = np.arange(len(labels)) != image
    expression = others & ((labels == labels[image]) == kind[0])
    both = expression & ((people == people[image]) == kind[1])
    for wanted in (both, expression, others):
        if wanted.any():
            return int(rng.choice(np.flatnonzero(wanted)))
    return image  # a side of one image


def _tuplet(query: int, labels: np.ndarray, people: np.ndarray, positives: int, rng: np.random.Generator) -> np.ndarray:
    """The query, its positives, its negatives."""
    own = people == people[query]
    alike = rng.permutation(np.flatnonzero((labels == labels[query]) & ~own))
    _, one_each = np.unique(people[alike], return_index=True)
    near = alike[rng.permutation(one_each)[:positives]]
    mine = rng.permutation(np.flatnonzero(own & (labels != labels[query])))
    _, one_each = np.unique(labels[mine], return_index=True)
    return np.concatenate([[query], near, mine[one_each]]).astype(np.int64)


def _derived(count: int, augment: str, rng: np.random.Generator) -> np.ndarray:
    """Numbers of derived samples: drawn, so that with "expand" one comes once an epoch on the average alone."""
    return np.zeros(count, dtype=np.int64) if augment == "none" else rng.integers(0, DERIVED, count)
