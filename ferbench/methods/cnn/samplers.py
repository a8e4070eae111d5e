"""Index plans by class and person: the images of each training step, and the pairs or tuplets among them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ferbench.seeds import generator
from ferbench.training.augment import DERIVED
from ferbench.training.plan import EpochPlan, Step, steps

_NONE = np.empty(0, dtype=np.int64)
# The kinds of pairs: whether both images show the same expression, and whether they show the same person.
KINDS = tuple((expression, person) for expression in (True, False) for person in (True, False))


def grouped_epoch(labels: np.ndarray, augment: str, batch: int, members: int, seed: int, epoch: int) -> list[Step]:
    """Plan an epoch of steps with few classes and many images of each.

    The probability of a class is its share of the images. An image is repeated only after all others of its class.

    labels : [N]. members : the desired number of rows of each class in a step; it limits the number of classes in a
        step, which is at least one.
    """
    rng = generator(seed, "epoch", epoch)
    names, counts = np.unique(labels, return_counts=True)
    classes_in_step = min(len(names), max(1, batch // members))
    rows_of_class = batch // classes_in_step
    queues = {name: _Queue(np.flatnonzero(labels == name), rng) for name in names}
    plan = []
    for _ in range(steps(len(labels), augment, batch)):
        chosen = rng.choice(names, classes_in_step, replace=False, p=counts / counts.sum())
        images = np.concatenate([queues[name].next(rows_of_class) for name in chosen])
        plan.append(Step(images, _derived(len(images), augment, rng), 1, _NONE, _NONE))
    return plan


def pair_epoch(labels: np.ndarray, people: np.ndarray, augment: str, batch: int, seed: int, epoch: int) -> list[Step]:
    """Plan an epoch of pairs with ``batch`` rows in a step: first all first members, then all second members. Each pair
    is of a random one of :data:`KINDS`.

    If no image completes a pair of this kind, the second member is an image of any person with that expression or, if
    there is none, any other image.

    labels, people : [N].
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
    """Plan an epoch of (N+M) tuplets. A step holds as many whole tuplets as fit into ``batch`` rows, at least one.

    A tuplet has a query, up to ``positives`` images of its class, each of another person than the query's and of
    different people, and one image of each other class that the query's person shows.
    In the plan ``first`` are all rows of a step, and ``second`` is the row of each row's query.
    """
    rng = generator(seed, "epoch", epoch)
    queue = _Queue(np.arange(len(labels)), rng)
    following = _tuplet(int(queue.next(1)[0]), labels, people, positives, rng)
    plan = []
    for _ in range(steps(len(labels), augment, batch)):
        rows, queries = [following], [np.zeros(len(following), dtype=np.int64)]
        total = len(following)
        while total + len(following := _tuplet(int(queue.next(1)[0]), labels, people, positives, rng)) <= batch:
            rows.append(following)
            queries.append(np.full(len(following), total))
            total += len(following)
        images = np.concatenate(rows)
        plan.append(Step(images, _derived(total, augment, rng), 1, np.arange(total), np.concatenate(queries)))
    return plan


def shifted(plan: EpochPlan, most: float, seed: int) -> EpochPlan:
    """The plan with a random shift of each row along both axes, by at most the share ``most`` of the image's side."""

    def moved(step: Step, rng: np.random.Generator) -> Step:
        shifts = rng.uniform(-most, most, (len(step.images), 2))
        return replace(step, moves=np.column_stack([np.ones(len(shifts)), shifts]).astype(np.float32))

    def planned(epoch: int) -> list[Step]:
        rng = generator(seed, "epoch", epoch)
        return [moved(step, rng) for step in plan(epoch)]

    return planned


class _Queue:
    """An endless sequence of rows: all rows in random order, then all rows in another random order, and so on."""

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
    for candidates in (both, expression, others):
        if candidates.any():
            return int(rng.choice(np.flatnonzero(candidates)))
    return image  # the set has one image only


def _tuplet(query: int, labels: np.ndarray, people: np.ndarray, positives: int, rng: np.random.Generator) -> np.ndarray:
    """The query, its positives, its negatives."""
    same_person, same_class = people == people[query], labels == labels[query]
    others = rng.permutation(np.flatnonzero(same_class & ~same_person))
    _, one_of_person = np.unique(people[others], return_index=True)
    near = others[rng.permutation(one_of_person)[:positives]]
    others = rng.permutation(np.flatnonzero(same_person & ~same_class))
    _, one_of_class = np.unique(labels[others], return_index=True)
    return np.concatenate([[query], near, others[one_of_class]]).astype(np.int64)


def _derived(count: int, augment: str, rng: np.random.Generator) -> np.ndarray:
    """Random numbers of derived samples. With "expand" each sample occurs once an epoch on average, not exactly."""
    return np.zeros(count, dtype=np.int64) if augment == "none" else rng.integers(0, DERIVED, count)
