"""How sharp an image is: what a detector, its processing or a resize changes first.

The autoencoder renders no detail that its few latents cannot hold, so that neither they nor its
errors show such a change.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def sharpness(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean absolute second difference between neighbours, per spread of the greys.

    Args:
        pixels: (B, S, S).

    Returns:
        (B,), 0 of an image of one grey; about 4 of pure noise.
    """
    return np.array([_of_one(image) for image in pixels], dtype=np.float32)


def _of_one(image: NDArray[np.uint8]) -> float:
    grey = image.astype(np.int16)
    across = np.abs(2 * grey[:, 1:-1] - grey[:, :-2] - grey[:, 2:]).mean()
    down = np.abs(2 * grey[1:-1] - grey[:-2] - grey[2:]).mean()
    spread = float(grey.std(dtype=np.float64))
    return float(across + down) / spread if spread else 0.0
