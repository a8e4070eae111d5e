"""LOMo: Sikka, Sharma, Bartlett, "LOMo: latent ordinal model for facial analysis in videos", CVPR 2016.

A sequence's score is that of a few templates placed at frames where they fit, plus what their order in time is worth.
Where templates lie is found exactly, by dynamic programming for each order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np


@cache
def orders(templates: int) -> np.ndarray:
    """Return the M! orders [M!,M]: the template that comes first, second, … in time."""
    return np.array(list(permutations(range(templates))))


@dataclass(frozen=True)
class Placement:
    """Where B models place their M templates.

    values : [B], their scores. order : [B], of the M!. frames : [B,M], of template 0, 1, …
    """

    values: np.ndarray
    order: np.ndarray
    frames: np.ndarray


def place(fits: np.ndarray, costs: np.ndarray, gap: int) -> Placement:
    """Place templates where the mean of their fits plus the worth of their order is largest.

    fits : [B,M,T], how well each template fits each frame. costs : [B,M!], what each order is worth. gap : frames
    between two that are chosen, at least; with 0 they are only different. T ≥ M + (M-1)·gap.

    s = max over frames k_1 … k_M of (1/M) Σ_i fits[i, k_i] + costs[order of the k_i]. For one order it is a chain: the
    best sum that ends with the j-th template at frame t is its fit plus the best that ends with the one before at or
    before t - gap - 1.
    """
    batch, templates, frames = fits.shape
    each = orders(templates)
    in_order = fits[:, each]  # [B,M!,M,T]
    best = in_order[:, :, 0]
    ends = [best]
    for step in range(1, templates):
        before = np.full_like(best, -np.inf)
        before[..., gap + 1 :] = np.maximum.accumulate(best, axis=-1)[..., : frames - gap - 1]
        best = in_order[:, :, step] + before
        ends.append(best)
    values = best.max(axis=-1) / templates + costs
    order = values.argmax(axis=1)
    models = np.arange(batch)
    found = np.empty((batch, templates), dtype=np.int64)
    last = np.full(batch, frames)
    for step in reversed(range(templates)):
        allowed = np.where(np.arange(frames) < last[:, None], ends[step][models, order], -np.inf)
        at = allowed.argmax(axis=1)
        found[models, each[order, step]] = at
        last = at - gap
    return Placement(values[models, order], order, found)


class OrderedTemplates:
    """B models of M templates each: w [B,M,d] and the worth c [B,M!] of each order."""

    def __init__(self, w: np.ndarray, c: np.ndarray, gap: int) -> None:
        self.w, self.c, self.gap = w, c, gap

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return [N,B] of sequences [N,T,d]."""
        return np.stack([place(self.w @ one.T, self.c, self.gap).values for one in x])

    def step(self, x: np.ndarray, sign: np.ndarray, penalty: float, rate: float) -> None:
        """One step of stochastic subgradient descent on a sequence [T,d], of λ/2 Σ|w_i|² + max(0, 1 - y s(x)).

        sign : [B], y of each model, 1 or -1. Of the models with y s < 1:
        w_i ← (1 - λη) w_i + η y x_{k_i} / M,  c_order ← c_order + η y.
        """
        placed = place(self.w @ x.T, self.c, self.gap)
        wrong = np.flatnonzero(sign * placed.values < 1)
        shift = rate * sign[wrong]
        chosen = x[placed.frames[wrong]]  # [B',M,d]
        self.w[wrong] = (1 - penalty * rate) * self.w[wrong] + shift[:, None, None] * chosen / self.w.shape[1]
        self.c[wrong, placed.order[wrong]] += shift

    def objective(self, x: np.ndarray, signs: np.ndarray, penalty: float) -> np.ndarray:
        """Return λ/2 Σ|w_i|² + the mean hinge loss of each model [B] on sequences [N,T,d] with signs [N,B]."""
        hinge = np.maximum(0.0, 1 - signs * self.scores(x)).mean(axis=0)
        return penalty / 2 * (self.w**2).sum(axis=(1, 2)) + hinge


def learned(
    x: np.ndarray,
    signs: np.ndarray,
    templates: int,
    gap: int,
    penalty: float,
    rate: float,
    epochs: int,
    restarts: int,
    rng: np.random.Generator,
    report: Callable[[int], None] = lambda epoch: None,
    ordered: bool = True,
) -> OrderedTemplates:
    """Learn K models from sequences [N,T,d] with signs [N,K] of 1 and -1.

    All are trained ``restarts`` times at once, from different small templates, and of each the one with the lowest
    objective on what it was trained on is kept. ordered : false leaves all orders worth nothing.
    """
    count, kinds = signs.shape
    w = rng.normal(0, 0.1 / np.sqrt(x.shape[2]), (restarts * kinds, templates, x.shape[2]))
    models = OrderedTemplates(w, np.zeros((len(w), len(orders(templates)))), gap)
    every = np.tile(signs, restarts)  # model r·K + k is the r-th of class k
    for epoch in range(epochs):
        for sample in rng.permutation(count):
            models.step(x[sample], every[sample], penalty, rate)
            if not ordered:
                models.c[:] = 0.0
        report(epoch + 1)
    best = models.objective(x, every, penalty).reshape(restarts, kinds).argmin(axis=0) * kinds + np.arange(kinds)
    return OrderedTemplates(models.w[best], models.c[best], gap)
