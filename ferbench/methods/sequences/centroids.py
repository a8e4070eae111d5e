"""The initial weights of 3DCNN-DAP (Liu et al. 2014): its filters are centroids of patches of the training set, its
connections are linear regressions; back-propagation continues from there. Which patches are clustered for the filters
of parts, and the scale of the filters, are our interpretation, because the paper was not available."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.methods.sequences.networks import PARTS, PLACES, ActionPartCnn
from ferbench.seeds import generator

_PATCHES = 20_000  # patches that are clustered for the generic filters
_AROUND = 1  # cells in each direction from the place of a part, in maps of 12×12
_PENALTIES = np.logspace(-3, 3, 7)  # of the ridge regression, chosen by leave-one-out validation
_LEAST = 1e-6  # length of a patch and deviation of a filter's output; below it they are treated as constant
_ROWS = 32  # sequences at a time, because the maps of all in double precision are large


@torch.no_grad()
def initialise(network: ActionPartCnn, x: Tensor, labels: Tensor, seed: int) -> None:
    """Set the filters and connections of a network from training sequences.

    Generic filters are k-means centroids of 9×9×3 patches with mean 0 and length 1. The filter of a part for a class is
    the mean patch of the generic maps around the part's place in that class, minus the mean over all classes. All
    filters are scaled to outputs of mean 0 and deviation 1 on the training set, before tanh. The connections of each
    part, and those of all parts together, are regressions of the classes on the scores.

    x : pixels float32 [N,T,48,48], undistorted. labels : int64 [N]. Both on the network's device.
    """
    network.eval()
    generic, specific = network.generic[0], network.specific[0]
    assert isinstance(generic, nn.Conv3d)
    assert isinstance(specific, nn.Conv3d)
    generic.weight.copy_(_generic_filters(x, generic.out_channels, seed).unsqueeze(1))
    _scale(generic, x.unsqueeze(1))
    maps = torch.cat([network.generic(part) for part in x.unsqueeze(1).split(_ROWS)])
    specific.weight.copy_(_specific_filters(maps, labels, network.classes))
    _scale(specific, maps)
    scores = torch.cat([network.scores(part)[1] for part in x.split(_ROWS)])
    network.centre.copy_(scores.mean(dim=0))
    targets = nn.functional.one_hot(labels, network.classes).to(x)
    for part in range(PARTS):
        network.partial[part] = _regression(scores[:, part], targets)[0]
    weight, bias = _regression(network.features(scores), targets)
    network.top.weight.copy_(weight.T)
    network.top.bias.copy_(bias)


def _generic_filters(x: Tensor, count: int, seed: int) -> Tensor:
    """Centroids [count,3,9,9] of patches of x."""
    from sklearn.cluster import KMeans

    windows = x.unfold(1, 3, 1).unfold(2, 9, 1).unfold(3, 9, 1)
    rng = generator(seed, "patches")
    places = [torch.from_numpy(rng.integers(0, size, _PATCHES)).to(x.device) for size in windows.shape[:4]]
    patches = windows[tuple(places)].flatten(1).double()
    patches = patches - patches.mean(dim=1, keepdim=True)
    length = patches.norm(dim=1)
    patches = (patches[length > _LEAST] / length[length > _LEAST, None]).cpu().numpy()
    centroids = KMeans(count, n_init=1, random_state=int(rng.integers(2**31))).fit(patches).cluster_centers_
    return torch.from_numpy(centroids.reshape(count, 3, 9, 9)).to(x)


def _specific_filters(maps: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Filters [PARTS·K,F,3,9,9] of generic maps [N,F,T-2,20,20]."""
    side, frames = maps.shape[-1] - 8, maps.shape[2] - 2
    filters = []
    for place in PLACES:
        column, row = (min(max(round(share * side - 0.5), _AROUND), side - 1 - _AROUND) for share in place)
        around = range(-_AROUND, _AROUND + 1)
        patches = torch.stack(
            [
                maps[:, :, t : t + 3, row + dy : row + dy + 9, column + dx : column + dx + 9]
                for t in range(frames)
                for dy in around
                for dx in around
            ]
        ).mean(dim=0)
        members = (labels == label for label in range(classes))
        means = torch.stack([(patches[rows] if bool(rows.any()) else patches).mean(dim=0) for rows in members])
        filters.append(means - means.mean(dim=0))
    return torch.cat(filters)


def _scale(layer: nn.Conv3d, x: Tensor) -> None:
    """Scale and shift the filters of a layer so that their outputs for x have mean 0 and deviation 1."""
    assert layer.bias is not None
    layer.bias.zero_()
    sums = squares = torch.zeros_like(layer.bias, dtype=torch.float64)
    count = 0
    for part in x.split(_ROWS):
        outputs = layer(part).double().transpose(0, 1).flatten(1)
        sums, squares, count = sums + outputs.sum(dim=1), squares + (outputs**2).sum(dim=1), count + outputs.shape[1]
    mean = sums / count
    deviation = (squares / count - mean**2).clamp_min(0).sqrt().clamp_min(_LEAST)
    layer.weight.div_(deviation.to(layer.weight).view(-1, 1, 1, 1, 1))
    layer.bias.copy_(-mean / deviation)


def _regression(x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [F,K] and intercept [K] of the ridge regression of ``targets`` [N,K] on x [N,F]."""
    from sklearn.linear_model import RidgeCV

    ridge = RidgeCV(_PENALTIES).fit(x.double().cpu().numpy(), targets.double().cpu().numpy())
    return torch.from_numpy(ridge.coef_.T.copy()).to(x), torch.from_numpy(ridge.intercept_).to(x)
