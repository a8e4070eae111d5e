"""Frames and landmarks of sequences: resampled, normalised, mirrored."""

import numpy as np

NOSE = 30  # its tip, of the 68 points
_PAIRS = (
    *((point, 16 - point) for point in range(8)),  # the jaw
    *((point, 43 - point) for point in range(17, 22)),  # brows
    (31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46),  # nose and eyes
    (48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67),  # lips
)  # fmt: skip
SIDE = 48  # pixels of a crop


def resample(array: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` frames of n: number round(j(n-1)/(count-1)), so the first and the last always; fewer repeat."""
    places = np.linspace(0, len(array) - 1, count)
    return array[np.rint(places).astype(int)]


def normalised(landmarks: np.ndarray) -> np.ndarray:
    """Return landmarks [T,68,2] as seen from the tip of the nose, in units of their deviation along each axis, frame by
    frame: free of place and of size along both axes."""
    centred = landmarks - landmarks[:, NOSE : NOSE + 1]
    return centred / np.maximum(landmarks.std(axis=1, keepdims=True), 1e-6)


def mirrored(landmarks: np.ndarray) -> np.ndarray:
    """Return landmarks [T,68,2] in pixels as the mirrored frames show them: left and right points change names."""
    order = np.arange(landmarks.shape[1])
    for one, other in _PAIRS:
        order[[one, other]] = other, one
    found = landmarks[:, order].copy()
    found[..., 0] = SIDE - 1 - found[..., 0]
    return found
