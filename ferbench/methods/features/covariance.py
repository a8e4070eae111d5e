"""Cov3D: Sanin, Sanderson, Harandi, Lovell, "Spatio-temporal covariance descriptors for action and gesture
recognition", WACV 2013. Here windows are not chosen by boosting: all are projected to the tangent space of their
Riemannian mean, and a linear classifier reads them together."""

import warnings
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from pyriemann.tangentspace import TangentSpace
from skimage.registration import optical_flow_ilk

from ferbench.methods.features.descriptor import Descriptor, Seed, frames_of
from ferbench.methods.features.recipe import Covariance
from ferbench.methods.features.spd import ridged
from ferbench.methods.interface import Video

RADIUS, WARPS = 5, 2  # pixels of the neighbourhood whose flow is taken to be one, and refinements of it: our reading


def pixel_features(video: np.ndarray, flow: bool) -> np.ndarray:
    """Return features [T,H,W,d] of each pixel of a video [T,H,W]: x, y, t, |Ix|, |Iy|, |Ixx|, |Iyy|,
    sqrt(Ix² + Iy²), arctan(|Iy|/|Ix|); with flow also u, v, their changes over time, divergence and vorticity."""
    t, y, x = np.meshgrid(*(np.arange(length, dtype=np.float64) for length in video.shape), indexing="ij")
    ix, iy = np.gradient(video, axis=2), np.gradient(video, axis=1)
    ixx, iyy = np.gradient(ix, axis=2), np.gradient(iy, axis=1)
    found = [
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
        found += [
            u,
            v,
            np.gradient(u, axis=0),
            np.gradient(v, axis=0),
            np.gradient(u, axis=2) + np.gradient(v, axis=1),
            np.gradient(v, axis=2) - np.gradient(u, axis=1),
        ]
    return np.stack(found, axis=-1)


def windows(shape: tuple[int, int, int], sides: tuple[int, ...]) -> list[tuple[slice, slice, slice]]:
    """Return windows of a video of shape (T,H,W) as slices of t, y, x: squares that overlap by half, each over half of
    the frames, by half, and over all of them."""
    frames, height, width = shape
    times = [slice(start, start + frames // 2) for start in range(0, frames // 2 + 1, frames // 4)]
    found = []
    for side in sides:
        rows = [slice(start, start + side) for start in range(0, height - side + 1, max(1, side // 2))]
        columns = [slice(start, start + side) for start in range(0, width - side + 1, max(1, side // 2))]
        found += [(time, row, column) for time in [*times, slice(0, frames)] for row in rows for column in columns]
    return found


def window_covariances(features: np.ndarray, places: list[tuple[slice, slice, slice]]) -> np.ndarray:
    """Return the covariances [W,d,d] of features [T,H,W,d] in windows: (Q - p p'/S)/(S-1), where p and Q are sums of z
    and of z z' over the S pixels of a window, read off integral videos.

    Sums are made once in the cells between all windows' borders, and integrated over these.
    """
    z = features - features.mean(axis=(0, 1, 2))  # no covariance changes, but sums stay small
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
    found = np.empty((len(places), size, size))
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
        found[number] = (second - np.outer(first, first) / count) / (count - 1)
    return found


class WindowCovariances(Descriptor):
    """Each window's covariance as log(M^-1/2 C M^-1/2) at the Riemannian mean M that it has on the training set."""

    def __init__(self, recipe: Covariance) -> None:
        self.recipe: Covariance = recipe

    def one(self, sample: Video) -> np.ndarray:
        video = frames_of(sample, self.recipe.frames)
        return window_covariances(pixel_features(video, self.recipe.flow), windows(video.shape, self.recipe.windows))

    def fit(self, raw: np.ndarray, labels: np.ndarray, seed: Seed) -> None:
        """Learn the features' scale and each window's mean from covariances [N,W,d,d]."""
        variance = np.diagonal(raw, axis1=-2, axis2=-1).mean(axis=(0, 1))
        self.scale = np.where(variance > 1e-12, variance, 1.0) ** -0.5
        made = self._scaled(raw)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Convergence not reached")  # M is any fixed point near the data
            self.means = np.stack([_tangent().fit(made[:, window]).reference_ for window in range(made.shape[1])])

    def transform(self, raw: np.ndarray) -> np.ndarray:
        made = self._scaled(raw)
        found = []
        for window, mean in enumerate(self.means):
            space = _tangent()
            space.reference_ = mean
            found.append(space.transform(made[:, window]))
        return np.concatenate(found, axis=1)

    def state(self) -> dict[str, np.ndarray]:
        return {"scale": self.scale, "means": self.means}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        self.scale, self.means = state["scale"], state["means"]

    def _scaled(self, raw: np.ndarray) -> np.ndarray:
        """In units in which the ridge weighs the same for grey levels, pixels and angles."""
        return ridged(raw * self.scale[:, None] * self.scale, self.recipe.ridge)


def _tangent() -> TangentSpace:
    return TangentSpace(metric="riemann")


def _flow(video: np.ndarray) -> np.ndarray:
    """Optical flow [2,T,H,W], down and right, in pixels a frame, from each frame's predecessor; the first frame's is
    that of the second."""
    scaled = video / 255
    found = [optical_flow_ilk(one, other, radius=RADIUS, num_warp=WARPS) for one, other in pairwise(scaled)]
    return np.stack([found[0], *found], axis=1).astype(np.float64)
