"""How sharp an image is: what a detector, its processing or a resize changes first.

The autoencoder renders no detail that its few latents cannot hold, so that neither they nor its
errors show such a change.
"""

from __future__ import annotations

import torch
from torch import Tensor

PLANE = (-2, -1)


@torch.inference_mode()
def sharpness(image: Tensor) -> Tensor:
    """Return the mean absolute second difference between neighbours, per spread of the greys.

    Args:
        image: (B, 1, S, S), float32 of any scale.

    Returns:
        (B,), float32 on the same device: 0 of an image of one grey, about 4 of pure noise.
    """
    greys = image.squeeze(1)
    if image.device.type == "cpu":  # one fits a core's cache; a GPU wants few kernels
        return torch.stack([_sharpness(grey) for grey in greys])
    return _sharpness(greys)


def _sharpness(greys: Tensor) -> Tensor:
    """Return that of (..., H, W), in the shape of the first axes."""
    roughness = _second_difference(greys) + _second_difference(greys.mT)
    spread = (greys - greys.mean(dim=PLANE, keepdim=True)).square_().mean(dim=PLANE).sqrt()
    return torch.where(roughness > 0, roughness / spread, 0)


def _second_difference(greys: Tensor) -> Tensor:
    """Return its mean absolute value down the columns of (..., H, W)."""
    difference = 2 * greys[..., 1:-1, :]
    return difference.sub_(greys[..., :-2, :]).sub_(greys[..., 2:, :]).abs_().mean(dim=PLANE)
