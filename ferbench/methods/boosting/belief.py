"""Deep belief networks of patches: stacks of restricted Boltzmann machines, trained one after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit
from sklearn.neural_network import BernoulliRBM

from ferbench.methods.boosting.recipe import Belief, Patches

Layers = list[tuple[np.ndarray, np.ndarray]]  # weights [P,in,out] and biases [P,out] of P patches, from below upward


def cut(images: np.ndarray, shape: Patches) -> np.ndarray:
    """Return the patches of images uint8 [N,48,48], row by row: float64 [P,N,side²], each patch's grey levels stretched
    to 0..1, which a machine of binary units takes for probabilities."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (shape.side, shape.side), axis=(1, 2))
    windows = windows[:, :: shape.stride, :: shape.stride]
    levels = windows.reshape(len(images), -1, shape.side**2).transpose(1, 0, 2).astype(np.float64)
    low, high = levels.min(axis=2, keepdims=True), levels.max(axis=2, keepdims=True)
    return (levels - low) / np.maximum(high - low, 1)


def machine(values: np.ndarray, hidden: int, settings: Belief, seed: int) -> BernoulliRBM:
    """Train one restricted Boltzmann machine by persistent contrastive divergence (Tieleman 2008), as scikit-learn
    does, on values in [0,1], float64 [N,D]."""
    made = BernoulliRBM(
        hidden, learning_rate=settings.lr, batch_size=settings.batch, n_iter=settings.epochs, random_state=seed % 2**32
    )
    return made.fit(values)


def pretrained(
    patches: np.ndarray, settings: Belief, seed: Callable[[str], int], report: Callable[[int], None]
) -> Layers:
    """Train a stack on each patch, float64 [P,N,D]. report : told how many stacks are done."""
    found: list[list[tuple[np.ndarray, np.ndarray]]] = []
    for place, values in enumerate(patches):
        stack = []
        for level, hidden in enumerate(settings.hidden):
            made = machine(values, hidden, settings, seed(f"machine {place} {level}"))
            weights, biases = made.components_.T.copy(), made.intercept_hidden_.copy()
            stack.append((weights, biases))
            values = expit(values @ weights + biases)
        found.append(stack)
        report(place + 1)
    return [
        (np.stack([stack[level][0] for stack in found]), np.stack([stack[level][1] for stack in found]))
        for level in range(len(settings.hidden))
    ]


def upward(patches: np.ndarray, layers: Layers) -> np.ndarray:
    """The units at the top of each stack: float64 [P,N,D] → [P,N,H]."""
    for weights, biases in layers:
        patches = expit(patches @ weights + biases[:, None])
    return patches
