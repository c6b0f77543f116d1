"""How sharp an image is: what a detector, its processing or a resize changes first.

The autoencoder renders no detail that its few latents cannot hold, so that neither they nor its
errors show such a change.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.inference_mode()
def sharpness(image: Tensor) -> Tensor:
    """Return the mean absolute second difference between neighbours, per spread of the greys.

    Args:
        image: (B, 1, S, S), float32 of any scale.

    Returns:
        (B,), float32 on the same device: 0 of an image of one grey, about 4 of pure noise.
    """
    return torch.stack([_of_one(grey) for grey in image.squeeze(1)])  # one fits a core's cache


def _of_one(grey: Tensor) -> Tensor:
    roughness = _second_difference(grey) + _second_difference(grey.mT)
    spread = (grey - grey.mean()).square_().mean().sqrt()
    return torch.where(roughness > 0, roughness / spread, 0)


def _second_difference(grey: Tensor) -> Tensor:
    """Return its mean absolute value down the columns of (H, W)."""
    difference = 2 * grey[1:-1]
    return difference.sub_(grey[:-2]).sub_(grey[2:]).abs_().mean()
