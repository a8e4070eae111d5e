"""What identifies a picture whatever it is called and however a face is cut out of it: an exact digest of its pixels,
and a signature that survives saving it again with loss.

The signature is a random-hyperplane code (Charikar, "Similarity estimation techniques from rounding algorithms", STOC
2002) of a 16×16 thumbnail: of 256 projections it keeps the signs, so that the Hamming distance of two signatures is
256/π times the expected angle between the thumbnails. Projections have no constant part and weight each spatial
frequency by its magnitude. Otherwise all faces in one pose are alike, since most of the variance of photographs lies in
their low frequencies (Field, "Relations between the statistics of natural images and the response properties of
cortical cells", JOSA A 1987).

:data:`NEAR` was chosen by measurement on CK+48, FER2013 and 10,000 images of CelebA. A picture saved again as JPEG of
quality 75 differs in 5 bits at most (CelebA) to 14 (CK+48, FER2013), of quality 50 in 13 to 23 (1,000 pictures of
each). Pictures of different people differ in 31 bits or more (CK+48, all pairs) and in 38 or more (CelebA, 24 million
pairs, of which three show one photograph twice: 5 to 11 bits). All of 3,000 images of FERPlus have their lossy
copy in FER2013 within 11 bits.
"""

import hashlib
from functools import cache

import numpy as np
from PIL import Image

from ferbench.data import align
from ferbench.data.faces import SIZE
from ferbench.schema import Card

SIDE = 16  # pixels of a thumbnail
BITS = 256
NEAR = 24  # bits that may differ between copies of one photograph
_AT_ONCE = 128  # images of 48×48 pixels that are averaged at once
_BLOCK = 1 << 20  # pairs that are compared at once


def canonical(picture: Image.Image) -> np.ndarray:
    """Return a picture in 8 bits and without transparency: uint8 [H,W] where all channels are equal, else [H,W,3]."""
    if picture.mode in align.DEEP:
        return np.asarray(align.grey(picture))
    if picture.mode in ("1", "L", "LA"):
        return np.asarray(picture.convert("L"))
    colours = np.asarray(picture.convert("RGB"))
    return colours[..., 0] if (colours == colours[..., :1]).all() else colours


def digest(pixels: np.ndarray) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a :func:`canonical` picture: its shape, then its pixels. It does
    not depend on format, lossless compression, metadata or the name of the file."""
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:16]


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Return the means of a :func:`canonical` picture's grey values in 16×16 boxes: uint8 [16,16].

    A picture of 48×48 grey values is returned as it is, since :func:`signatures` averages many of them faster.
    """
    if pixels.shape == (SIZE, SIZE):
        return pixels
    return np.asarray(Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


def signatures(thumbnails: list[np.ndarray]) -> np.ndarray:
    """Return the signatures uint8 [N,32] of what :func:`thumbnail` returned for N pictures."""
    values = np.empty((len(thumbnails), SIDE, SIDE), dtype=np.float32)
    large = [row for row, thumbnail in enumerate(thumbnails) if len(thumbnail) == SIZE]
    for rows in (large[start : start + _AT_ONCE] for start in range(0, len(large), _AT_ONCE)):
        sums = np.stack([thumbnails[row] for row in rows]).astype(np.uint16)
        sums = sums[:, ::3] + sums[:, 1::3] + sums[:, 2::3]
        sums = sums[:, :, ::3] + sums[:, :, 1::3] + sums[:, :, 2::3]
        values[rows] = (sums + 4) // 9
    if small := [row for row, thumbnail in enumerate(thumbnails) if len(thumbnail) == SIDE]:
        values[small] = [thumbnails[row] for row in small]
    # Not above 0: of an even grey, rounding would decide the signs.
    return np.packbits(values.reshape(len(values), -1) @ _projections() > 0.5, axis=1)


def tolerance(card: Card) -> int:
    """Return in how many bits the signatures of a prepared set's pictures may differ from those of their copies.

    None in sets of drawn faces: those of two people may differ in 10 bits only, and nobody stores them with loss.
    """
    return 0 if card.layout == "drawn" else NEAR


def near_copies(some: np.ndarray, others: np.ndarray, bits: int = NEAR) -> np.ndarray:
    """Say for each signature uint8 [N,32] whether one of the others [M,32] differs in at most so many bits: bool [N].

    Of ``bits`` + 1 bands of a signature, such a copy has at least one unchanged: only signatures that share a band are
    compared in full.
    """
    first = np.ascontiguousarray(some).view("<u8")
    second = np.ascontiguousarray(others).view("<u8")
    near = np.zeros(len(first), dtype=bool)
    for wanted, there in zip(_bands(some, bits + 1), _bands(others, bits + 1), strict=True):
        order = np.argsort(there, kind="stable")
        counts = np.bincount(there, minlength=1 << 16)  # of the others, by the value of their band
        starts = np.cumsum(counts) - counts
        rows = np.flatnonzero(~near)
        step = max(1, _BLOCK // max(1, counts.max()))
        for block in (rows[at : at + step] for at in range(0, len(rows), step)):
            many = counts[wanted[block]]
            pair = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many - starts[wanted[block]], many)
            row = np.repeat(block, many)
            distance = np.bitwise_count(first[row] ^ second[order[pair]]).sum(axis=1)
            near[row[distance <= bits]] = True
    return near


def _bands(signatures: np.ndarray, count: int) -> np.ndarray:
    """Cut the bits of signatures [N,32] into ``count`` bands: their values uint16 [count,N]."""
    width = min(16, BITS // count)
    bits = np.unpackbits(signatures, axis=1)[:, : count * width].reshape(len(signatures), count, width)
    values = np.zeros((count, len(signatures)), dtype=np.uint16)
    for place in range(width):
        values |= bits[:, :, place].T.astype(np.uint16) << place
    return values


@cache
def _projections() -> np.ndarray:
    """The 256 projections, float32 [16·16,256]: random signs of the cosines of a thumbnail, each weighted by its
    frequency. Signs come from a hash, so that they are the same with any version of NumPy."""
    place = np.arange(SIDE)
    cosines = np.cos(np.pi / SIDE * (place + 0.5) * place[:, None])  # of the discrete cosine transform, DCT-II
    cosines[0] /= np.sqrt(2)
    bits = np.frombuffer(hashlib.shake_256(b"ferbench").digest(BITS * SIDE * SIDE // 8), dtype=np.uint8)
    signs = 2.0 * np.unpackbits(bits).reshape(BITS, SIDE, SIDE) - 1
    weights = np.hypot(place, place[:, None])
    projected = np.einsum("nuv,ui,vj->ijn", signs * weights, cosines, cosines, optimize=True)
    return projected.reshape(SIDE * SIDE, BITS).astype(np.float32)
