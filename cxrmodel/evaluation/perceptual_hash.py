"""Fingerprints of what an image shows, to find the same image stored twice.

Source: the difference hash of N. Krawetz, Kind of like that, 2013: whether each pixel of a small
thumbnail is brighter than its neighbour. Here of 16 x 16 comparisons along rows and as many along
columns, since chest X-rays resemble each other more than photographs do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxrmodel.evaluation.resolution import shrink

SIDE = 16
NUM_BITS = 2 * SIDE * SIDE

DIRECTIONS = 64  # of 512: one pair in 20,000 of other X-rays looks near along these
MAX_DRAWN = 10_000  # fingerprints that the directions are found from
QUERIES, OTHERS = 1024, 8192  # compared at once: 32 MiB
MAX_PAIRS = 100_000  # of 8 million whose bits are counted one by one
ROUNDING = 0.5  # of a squared distance in float32, up to 2048


def hash_images(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the fingerprint of each image.

    Args:
        images: (B, S, S), S at least 17.

    Returns:
        (B, 64), 512 bits packed.
    """
    small = shrink(images, SIDE + 1)  # (B, 17, 17)
    along_rows = small[:, :-1, 1:] > small[:, :-1, :-1]
    along_columns = small[:, 1:, :-1] > small[:, :-1, :-1]
    bits = np.stack([along_rows, along_columns], axis=1).reshape(len(images), -1)
    return np.packbits(bits, axis=1)


def nearest_within(
    queries: NDArray[np.uint8], others: NDArray[np.uint8], most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the nearest of some fingerprints, where it is near, by the number of bits that differ.

    A few directions, those in which the fingerprints vary most, tell nearly all pairs apart: seen
    along these alone, two fingerprints are at most as far apart as they are.

    Args:
        queries: (Q, 64), packed.
        others: (M, 64), packed; at least one.
        most: Bits that may differ.

    Returns:
        Row of the nearest among the others, the first of equals, and its distance in bits; each
        (Q,). Where none is near, row 0 and `most + 1` bits.
    """
    directions = _widest(others)
    seen = _along(others, directions)  # (M, DIRECTIONS)
    # A product of these is -2 ab + aa + bb, the squared distance.
    right = np.column_stack([-2 * seen, np.ones(len(seen)), (seen**2).sum(axis=1)])
    right = np.ascontiguousarray(right.T, dtype=np.float32)
    rows = np.zeros(len(queries), dtype=np.int64)
    distances = np.full(len(queries), most + 1, dtype=np.int64)
    for start in range(0, len(queries), QUERIES):
        seen = _along(queries[start : start + QUERIES], directions)
        left = np.column_stack([seen, (seen**2).sum(axis=1), np.ones(len(seen))])
        left = left.astype(np.float32)
        for first in range(0, len(others), OTHERS):
            apart = left @ right[:, first : first + OTHERS]
            limit = 4 * most + ROUNDING  # a bit is 2 apart
            some = np.flatnonzero(apart.min(axis=1) <= limit)
            own, found = _nearest_pairs(
                queries[start + some], others[first : first + OTHERS], apart[some] <= limit
            )
            own, found = start + some[own], first + found
            bits = _differing(queries[own], others[found])
            nearer = bits < distances[own]
            rows[own[nearer]], distances[own[nearer]] = found[nearer], bits[nearer]
    return rows, distances


def _widest(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (bits, DIRECTIONS) orthonormal directions."""
    drawn = np.random.default_rng(0).permutation(len(packed))[:MAX_DRAWN]
    signs = _signs(packed[drawn])
    signs -= signs.mean(axis=0)
    return np.asarray(np.linalg.eigh(signs.T @ signs)[1][:, -DIRECTIONS:], dtype=np.float32)


def _along(packed: NDArray[np.uint8], directions: NDArray[np.float32]) -> NDArray[np.float32]:
    blocks = range(0, len(packed), QUERIES)
    return np.concatenate([_signs(packed[at : at + QUERIES]) @ directions for at in blocks])


def _nearest_pairs(
    queries: NDArray[np.uint8], others: NDArray[np.uint8], near: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of queries that have a near pair, and of the nearest of each."""
    if np.count_nonzero(near) > MAX_PAIRS:  # such as many copies of one image
        agreement = _signs(queries) @ _signs(others).T
        return np.arange(len(queries)), agreement.argmax(axis=1)
    own, found = np.nonzero(near)
    order = np.lexsort((found, _differing(queries[own], others[found]), own))
    own, first = np.unique(own[order], return_index=True)
    return own, found[order][first]


def _differing(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the bits in which each of two (B, 64) fingerprints differ, (B,)."""
    return np.asarray(np.bitwise_count(one ^ two).sum(axis=1), dtype=np.int64)


def _signs(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
