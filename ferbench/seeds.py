"""One seed derives all others by name, so that no two uses of randomness share a stream."""

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the use called ``names``, derived from the run's one ``seed``.

    The derivation is SHA-256 over the seed and the names, so it is the same on every machine and
    adding a new named use never shifts an old one.
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return numpy's generator for the use called ``names`` (see :func:`derive_seed`)."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, *names)))
