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


def nearest_distances(
    queries: NDArray[np.uint8], others: NDArray[np.uint8], *, block: int = 1024
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the nearest of some fingerprints, by the number of bits that differ.

    Args:
        queries: (Q, 64), packed.
        others: (M, 64), packed; at least one.
        block: Queries at once: with 80,000 others, 1,024 take 330 MB.

    Returns:
        Row of the nearest among the others, and its distance in bits; each (Q,).
    """
    signs = _signs(others).T  # (bits, M)
    rows, distances = [], []
    for start in range(0, len(queries), block):
        agreement = _signs(queries[start : start + block]) @ signs  # (B, M)
        nearest = agreement.argmax(axis=1)
        rows.append(nearest)
        distances.append((NUM_BITS - agreement[np.arange(len(nearest)), nearest]) / 2)
    return np.concatenate(rows), np.concatenate(distances).astype(np.int64)


def _signs(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
