"""Symmetric positive definite matrices as points of a vector space.

``pyriemann`` has the affine-invariant metric and its mean; here is what is needed of the log-Euclidean one
(Arsigny, Fillard, Pennec, Ayache 2006).
"""

import numpy as np


def ridged(matrices: np.ndarray, share: float) -> np.ndarray:
    """Return covariances [...,d,d] with ``share`` of their mean variance tr/d added to the diagonal, and with
    1e-12 where all variances are 0, so that each is positive definite."""
    size = matrices.shape[-1]
    mean = np.trace(matrices, axis1=-2, axis2=-1) / size
    return matrices + (share * mean + 1e-12)[..., None, None] * np.eye(size)


def log(matrices: np.ndarray) -> np.ndarray:
    """Return the matrix logarithm of symmetric positive definite matrices [...,d,d]."""
    values, vectors = np.linalg.eigh(matrices)
    return (vectors * np.log(values)[..., None, :]) @ np.swapaxes(vectors, -1, -2)


def vec(matrices: np.ndarray) -> np.ndarray:
    """Return the upper triangles of symmetric matrices [...,d,d] as vectors [...,d(d+1)/2].

    What lies off the diagonal is multiplied by the root of 2, so that <vec X, vec Y> = tr(X Y).
    """
    rows, columns = np.triu_indices(matrices.shape[-1])
    return matrices[..., rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))
