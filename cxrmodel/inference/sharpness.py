"""How sharp an image is: what a detector, its processing or a resize changes first.

The autoencoder renders no detail that its few latents cannot hold, so that neither they nor its
errors show such a change.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray


def sharpness(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean absolute second difference between neighbours, per spread of the greys.

    As many threads as PyTorch computes with take an image each: one alone would hold up a GPU.

    Args:
        pixels: (B, S, S).

    Returns:
        (B,), 0 of an image of one grey; about 4 of pure noise.
    """
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return np.fromiter(pool.map(_of_one, pixels), np.float32, len(pixels))


def _of_one(image: NDArray[np.uint8]) -> float:
    grey = image.astype(np.int16)
    roughness = _second_difference(grey) + _second_difference(grey.T)
    # Sums of whole numbers, which come out alike in any order and take half the time.
    mean = int(image.sum(dtype=np.int64)) / image.size
    squares = image.astype(np.uint16)
    squares *= squares
    variance = int(squares.sum(dtype=np.int64)) / image.size - mean**2
    return roughness / variance**0.5 if variance > 0 else 0.0


def _second_difference(grey: NDArray[np.int16]) -> float:
    """Return its mean absolute value along the first axis."""
    difference = np.multiply(grey[1:-1], 2)
    difference -= grey[:-2]
    difference -= grey[2:]
    np.abs(difference, out=difference)
    return int(difference.sum(dtype=np.int64)) / difference.size
