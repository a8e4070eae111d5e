"""Where 3DCNN-DAP begins (Liu et al. 2014): its filters are centroids of the training set's patches, its connections
come of linear regression, and back-propagation goes on from there. What is clustered for the filters of parts, and at
which scale, is our interpretation: the paper was not at hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.methods.sequences.networks import PARTS, PLACES, ActionParts
from ferbench.seeds import generator

_PATCHES = 20_000  # of the training set, from which the generic filters come
_AROUND = 1  # cells in each direction from a part's place, in the maps of 12×12
_PENALTIES = np.logspace(-3, 3, 7)  # of the ridge, chosen by leaving samples out one by one
_STILL = 1e-6
_ROWS = 32  # sequences at a time: the maps of all in double precision would be large


@torch.no_grad()
def begin(network: ActionParts, x: Tensor, labels: Tensor, seed: int) -> None:
    """Set a network's filters and connections from training sequences.

    x : pixels float32 [N,T,48,48], undistorted. labels : int64 [N]. Both on the network's device.
    Generic filters are centroids of k-means over patches 9×9×3 without their mean and of length 1. The filter of a part
    for a class is the mean of the generic maps' patches around the part's place in that class, less the mean over all
    classes. All answer the training set with mean 0 and deviation 1 before tanh. Each part's scores are then regressed
    on the classes, and all parts' together.
    """
    network.eval()
    generic, specific = network.generic[0], network.specific[0]
    assert isinstance(generic, nn.Conv3d)
    assert isinstance(specific, nn.Conv3d)
    generic.weight.copy_(_generic(x, generic.out_channels, seed).unsqueeze(1))
    _scale(generic, x.unsqueeze(1))
    maps = torch.cat([network.generic(part) for part in x.unsqueeze(1).split(_ROWS)])
    specific.weight.copy_(_specific(maps, labels, network.classes))
    _scale(specific, maps)
    scores = torch.cat([network.scores(part)[1] for part in x.split(_ROWS)])
    network.centre.copy_(scores.mean(dim=0))
    wanted = nn.functional.one_hot(labels, network.classes).to(x)
    for part in range(PARTS):
        network.partial[part] = _regressed(scores[:, part], wanted)[0]
    features = network.features(scores)
    weight, bias = _regressed(features, wanted)
    network.top.weight.copy_(weight.T)
    network.top.bias.copy_(bias)


def _generic(x: Tensor, count: int, seed: int) -> Tensor:
    """Centroids [count,3,9,9] of patches."""
    from sklearn.cluster import KMeans

    windows = x.unfold(1, 3, 1).unfold(2, 9, 1).unfold(3, 9, 1)
    draw = generator(seed, "patches")
    places = [torch.from_numpy(draw.integers(0, size, _PATCHES)).to(x.device) for size in windows.shape[:4]]
    patches = windows[tuple(places)].flatten(1).double()
    patches = patches - patches.mean(dim=1, keepdim=True)
    length = patches.norm(dim=1)
    patches = (patches[length > _STILL] / length[length > _STILL, None]).cpu().numpy()
    found = KMeans(count, n_init=1, random_state=int(draw.integers(2**31))).fit(patches).cluster_centers_
    return torch.from_numpy(found.reshape(count, 3, 9, 9)).to(x)


def _specific(maps: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Filters [PARTS·K,F,3,9,9] of generic maps [N,F,T-2,20,20]."""
    side, frames = maps.shape[-1] - 8, maps.shape[2] - 2
    filters = []
    for place in PLACES:
        column, row = (min(max(round(share * side - 0.5), _AROUND), side - 1 - _AROUND) for share in place)
        around = range(-_AROUND, _AROUND + 1)
        seen = torch.stack(
            [
                maps[:, :, t : t + 3, row + dy : row + dy + 9, column + dx : column + dx + 9]
                for t in range(frames)
                for dy in around
                for dx in around
            ]
        ).mean(dim=0)
        means = torch.stack(
            [
                seen[labels == name].mean(dim=0) if bool((labels == name).any()) else seen.mean(dim=0)
                for name in range(classes)
            ]
        )
        filters.append(means - means.mean(dim=0))
    return torch.cat(filters)


def _scale(layer: nn.Conv3d, x: Tensor) -> None:
    """Scale and shift a layer's filters so that their answers to x have mean 0 and deviation 1."""
    assert layer.bias is not None
    layer.bias.zero_()
    sums = squares = torch.zeros_like(layer.bias, dtype=torch.float64)
    count = 0
    for part in x.split(_ROWS):
        found = layer(part).double().transpose(0, 1).flatten(1)
        sums, squares, count = sums + found.sum(dim=1), squares + (found**2).sum(dim=1), count + found.shape[1]
    mean = sums / count
    deviation = (squares / count - mean**2).clamp_min(0).sqrt().clamp_min(_STILL)
    layer.weight.div_(deviation.to(layer.weight).view(-1, 1, 1, 1, 1))
    layer.bias.copy_(-mean / deviation)


def _regressed(x: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [F,K] and intercept [K] of the ridge regression of ``wanted`` [N,K] on x [N,F]."""
    from sklearn.linear_model import RidgeCV

    found = RidgeCV(_PENALTIES).fit(x.double().cpu().numpy(), wanted.double().cpu().numpy())
    return torch.from_numpy(found.coef_.T.copy()).to(x), torch.from_numpy(found.intercept_).to(x)
