"""The joint training of the chosen networks of a class by the exponential loss."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ferbench.methods.boosting.belief import Layers
from ferbench.methods.boosting.recipe import Tuning


def strong(patches: Tensor, layers: list[tuple[Tensor, Tensor]], tops: Tensor, votes: Tensor) -> Tensor:
    """F(x) = Σ_q α_q (2 σ(w_q·v_q + b_q) − 1): patches [Q,N,D], layers of Q stacks, tops [Q,H+1], votes α [Q] → [N]."""
    units = patches
    for weights, biases in layers:
        units = torch.sigmoid(torch.baddbmm(biases[:, None], units, weights))
    said = torch.tanh(torch.baddbmm(tops[:, None, -1:], units, tops[:, :-1, None])[:, :, 0] / 2)
    return votes @ said


def tuned(
    patches: np.ndarray, layers: Layers, tops: np.ndarray, votes: np.ndarray, signs: np.ndarray, settings: Tuning
) -> tuple[Layers, np.ndarray, list[float]]:
    """Train chosen networks by gradient, votes as they are: mean exp(−y F(x)) over all samples at each step.

    patches : float64 [Q,N,D]. signs : −1 or 1 [N]. Returns layers, tops, and the loss before each step.
    """
    given = torch.from_numpy(np.ascontiguousarray(patches))
    signs_, votes_ = torch.from_numpy(signs.astype(np.float64)), torch.from_numpy(votes)
    learned = [tuple(torch.tensor(one, requires_grad=True) for one in layer) for layer in layers]
    top = torch.tensor(tops, requires_grad=True)
    optimizer = torch.optim.Adam([*(one for layer in learned for one in layer), top], lr=settings.lr)
    losses = []
    for _ in range(settings.steps):
        loss = torch.exp(-signs_ * strong(given, learned, top, votes_)).mean()  # type: ignore[arg-type]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    made = [(weights.detach().numpy(), biases.detach().numpy()) for weights, biases in learned]
    return made, top.detach().numpy(), losses
