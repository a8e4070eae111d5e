"""Boosting: patches are chosen one after the other, each for what those before it get wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from ferbench.methods.boosting.recipe import Boosting

_CERTAIN = 1 - 1e-6  # of r, beyond which a vote would be boundless


@dataclass(frozen=True)
class Chosen:
    """What boosting found for one class.

    patches : int64 [Q], in the order of choice, each patch once. tops : float64 [Q,H+1], weights and bias of their top
    units. votes : float64 [Q], α. errors, losses : float64 [Q], after each round the share of training samples on the
    wrong side and the mean of exp(−y F).
    """

    patches: np.ndarray
    tops: np.ndarray
    votes: np.ndarray
    errors: np.ndarray
    losses: np.ndarray


def weak(units: np.ndarray, tops: np.ndarray) -> np.ndarray:
    """h = 2 σ(w·v + b) − 1, in [−1,1]: units [P,N,H], tops [P,H+1] → [P,N]."""
    return np.tanh(((units @ tops[:, :-1, None])[:, :, 0] + tops[:, -1:]) / 2)


def fitted(units: np.ndarray, signs: np.ndarray, weights: np.ndarray, ridge: float, steps: int) -> np.ndarray:
    """Fit the top unit of every patch to weighted samples: Newton's method on
    Σ_i D_i log(1 + exp(−y_i z_i)) + ridge/2 ‖w‖².

    units : [P,N,H]. signs : y, −1 or 1 [N]. weights : D, of sum 1 [N]. Returns [P,H+1], the bias last.
    """
    inputs = np.concatenate([units, np.ones((*units.shape[:2], 1))], axis=2)
    penalty = np.full(inputs.shape[2], ridge)
    penalty[-1] = 1e-9  # of the bias: none, but for a matrix that can be inverted
    tops = np.zeros((len(units), inputs.shape[2]))
    for _ in range(steps):
        chance = expit((inputs @ tops[:, :, None])[:, :, 0])  # [P,N]
        slope = inputs.transpose(0, 2, 1) @ (weights * (chance - (signs > 0)))[:, :, None]
        curve = (inputs * (weights * chance * (1 - chance))[:, :, None]).transpose(0, 2, 1) @ inputs
        slope = slope[:, :, 0] + penalty * tops
        tops -= np.linalg.solve(curve + np.diag(penalty), slope[:, :, None])[:, :, 0]
    return tops


def choose(units: np.ndarray, signs: np.ndarray, settings: Boosting) -> Chosen:
    """Choose patches by AdaBoost with weak classifiers in [−1,1] (Schapire & Singer 1999, section 3.1): that of
    greatest r = Σ D_i y_i h_i, with α = ½ ln((1 + r)/(1 − r)), and D_i ← D_i exp(−α y_i h_i)/Z. Each patch comes once.

    units : [P,N,H]. signs : −1 or 1 [N].
    """
    count = len(signs)
    weights, total = np.full(count, 1 / count), np.zeros(count)
    places: list[int] = []
    found: list[tuple[np.ndarray, float, float, float]] = []
    for _ in range(min(settings.rounds, len(units))):
        left = np.setdiff1d(np.arange(len(units)), places)
        tops = fitted(units[left], signs, weights, settings.ridge, settings.newton)
        said = weak(units[left], tops)
        edges = said @ (weights * signs)
        best = int(edges.argmax())
        edge = min(float(edges[best]), _CERTAIN)
        if edge <= 0:
            break
        vote = float(np.log((1 + edge) / (1 - edge)) / 2)
        total = total + vote * said[best]
        weights = weights * np.exp(-vote * signs * said[best])
        weights = weights / weights.sum()
        places.append(int(left[best]))
        found.append((tops[best], vote, float((signs * total <= 0).mean()), float(np.exp(-signs * total).mean())))
    tops = np.array([one[0] for one in found]).reshape(len(found), units.shape[2] + 1)
    votes, errors, losses = np.array([one[1:] for one in found]).reshape(len(found), 3).T
    return Chosen(np.array(places, dtype=np.int64), tops, votes, errors, losses)
