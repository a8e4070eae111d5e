"""Cov3D: Sanin, Sanderson, Harandi, Lovell, "Spatio-temporal covariance descriptors for action and gesture
recognition", WACV 2013. Difference: windows are not selected by boosting; all are projected to the tangent space at
their Riemannian mean and concatenated for a linear classifier."""

import warnings
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from pyriemann.tangentspace import TangentSpace
from skimage.registration import optical_flow_ilk

from ferbench.methods.features import Covariance
from ferbench.methods.features.descriptor import Descriptor, Seed, frames_of
from ferbench.methods.features.expressionlets import ridged
from ferbench.methods.interface import Video

RADIUS, WARPS = 5, 2  # of the optical flow: radius in pixels of a window of constant flow, refinements; our choice


def pixel_features(video: np.ndarray, flow: bool) -> np.ndarray:
    """Return features [T,H,W,d] of each pixel of a video [T,H,W]: x, y, t, |Ix|, |Iy|, |Ixx|, |Iyy|,
    sqrt(Ix² + Iy²), arctan(|Iy|/|Ix|); with flow also u, v, their changes over time, divergence and vorticity."""
    t, y, x = np.meshgrid(*(np.arange(length, dtype=np.float64) for length in video.shape), indexing="ij")
    ix, iy = np.gradient(video, axis=2), np.gradient(video, axis=1)
    ixx, iyy = np.gradient(ix, axis=2), np.gradient(iy, axis=1)
    features = [
        x,
        y,
        t,
        np.abs(ix),
        np.abs(iy),
        np.abs(ixx),
        np.abs(iyy),
        np.hypot(ix, iy),
        np.arctan2(np.abs(iy), np.abs(ix)),
    ]
    if flow:
        v, u = _flow(video)
        features += [
            u,
            v,
            np.gradient(u, axis=0),
            np.gradient(v, axis=0),
            np.gradient(u, axis=2) + np.gradient(v, axis=1),
            np.gradient(v, axis=2) - np.gradient(u, axis=1),
        ]
    return np.stack(features, axis=-1)


def windows(shape: tuple[int, int, int], sides: tuple[int, ...]) -> list[tuple[slice, slice, slice]]:
    """Return windows of a video of shape (T,H,W) as slices of t, y, x: squares that overlap by half, each over all
    frames and over halves of the frames, which overlap by half too."""
    frames, height, width = shape
    times = [slice(start, start + frames // 2) for start in range(0, frames // 2 + 1, frames // 4)]
    result = []
    for side in sides:
        rows = [slice(start, start + side) for start in range(0, height - side + 1, max(1, side // 2))]
        columns = [slice(start, start + side) for start in range(0, width - side + 1, max(1, side // 2))]
        result += [(time, row, column) for time in [*times, slice(0, frames)] for row in rows for column in columns]
    return result


def window_covariances(features: np.ndarray, places: list[tuple[slice, slice, slice]]) -> np.ndarray:
    """Return the covariances [W,d,d] of features [T,H,W,d] in windows: (Q - p p'/S)/(S-1), where p and Q are sums of z
    and of z z' over the S pixels of a window, taken from integral videos.

    The integral videos have one cell for each box between neighbouring borders of the windows.
    """
    z = features - features.mean(axis=(0, 1, 2))  # keeps the sums small and changes no covariance
    size = z.shape[-1]
    borders = [
        sorted({0, z.shape[axis]} | {edge for place in places for edge in (place[axis].start, place[axis].stop)})
        for axis in range(3)
    ]
    sums = np.zeros((*(len(edges) for edges in borders), size, size + 1))
    for at in np.ndindex(*(len(edges) - 1 for edges in borders)):
        cell = z[tuple(slice(edges[i], edges[i + 1]) for edges, i in zip(borders, at, strict=True))].reshape(-1, size)
        sums[at[0] + 1, at[1] + 1, at[2] + 1] = np.column_stack([cell.T @ cell, cell.sum(axis=0)])
    sums = sums.cumsum(axis=0).cumsum(axis=1).cumsum(axis=2)
    covariances = np.empty((len(places), size, size))
    for number, place in enumerate(places):
        low, high = zip(
            *((b.index(p.start), b.index(p.stop)) for b, p in zip(borders, place, strict=True)), strict=True
        )
        corners = [
            (-1) ** at.count(0) * sums[tuple((low[axis], high[axis])[at[axis]] for axis in range(3))]
            for at in np.ndindex(2, 2, 2)
        ]
        total = np.sum(corners, axis=0)
        count = np.prod([p.stop - p.start for p in place])
        second, first = total[:, :size], total[:, size]
        covariances[number] = (second - np.outer(first, first) / count) / (count - 1)
    return covariances


class WindowCovariances(Descriptor):
    """The covariance C of each window as log(M^-1/2 C M^-1/2), M its Riemannian mean on the training set."""

    def __init__(self, recipe: Covariance) -> None:
        self.recipe: Covariance = recipe

    def describe(self, sample: Video) -> np.ndarray:
        video = frames_of(sample, self.recipe.frames)
        return window_covariances(pixel_features(video, self.recipe.flow), windows(video.shape, self.recipe.windows))

    def fit(self, raw: np.ndarray, labels: np.ndarray, seed: Seed) -> None:
        """Learn the scale of the features and the mean of each window from covariances [N,W,d,d]."""
        variance = np.diagonal(raw, axis1=-2, axis2=-1).mean(axis=(0, 1))
        self.scale = np.where(variance > 1e-12, variance, 1.0) ** -0.5
        windows = self._scaled(raw).swapaxes(0, 1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Convergence not reached")  # a point near the mean suffices
            self.means = np.stack([TangentSpace(metric="riemann").fit(window).reference_ for window in windows])

    def transform(self, raw: np.ndarray) -> np.ndarray:
        features = []
        for window, mean in zip(self._scaled(raw).swapaxes(0, 1), self.means, strict=True):
            space = TangentSpace(metric="riemann")
            space.reference_ = mean
            features.append(space.transform(window))
        return np.concatenate(features, axis=1)

    def state(self) -> dict[str, np.ndarray]:
        return {"scale": self.scale, "means": self.means}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        self.scale, self.means = state["scale"], state["means"]

    def _scaled(self, raw: np.ndarray) -> np.ndarray:
        """Covariances of scaled features, so that the ridge has the same weight for grey levels, pixels and angles."""
        return ridged(raw * self.scale[:, None] * self.scale, self.recipe.ridge)


def _flow(video: np.ndarray) -> np.ndarray:
    """Optical flow [2,T,H,W], down and right, in pixels per frame, from the previous frame. The first frame has the
    flow of the second one."""
    flows = [optical_flow_ilk(*frames, radius=RADIUS, num_warp=WARPS) for frames in pairwise(video / 255)]
    return np.stack([flows[0], *flows], axis=1).astype(np.float64)
