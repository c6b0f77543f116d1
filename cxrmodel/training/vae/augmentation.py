"""Small changes of position and exposure, as between two images of one chest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NUM_DRAWS = 8  # random numbers per image
TURN_RAD, SHIFT, ZOOM, STRETCH = 0.052, 0.04, 0.04, 0.02  # standard deviations at strength 1
GAMMA, CONTRAST, BRIGHTNESS = 0.12, 0.06, 0.02
DARKEST = 1e-4  # a power of zero has no finite slope, and none is needed


def augment(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Turn, shift, scale and expose each image anew; never mirror it: the heart has a side.

    What comes in from beyond an edge repeats the pixels of the edge.

    Args:
        images: (B, 1, S, S), float32 in [0, 1].
        draws: (B, `NUM_DRAWS`), float32 of N(0, 1), on the same device.
        strength: Scale of every standard deviation; 1 turns by 3 degrees.

    Returns:
        (B, 1, S, S), float32 in [0, 1].
    """
    position, exposure = strength * draws[:, :5], strength * draws[:, 5:]
    grid = nn.functional.affine_grid(_affine(position), list(images.shape), align_corners=False)
    moved = nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return _expose(moved, exposure)


def _affine(position: Tensor) -> Tensor:
    """Return (B, 2, 3) maps from the coordinates of the result to those of the image."""
    turn, zoom, stretch = TURN_RAD * position[:, 0], 1 + ZOOM * position[:, 1], STRETCH
    wide = zoom * (1 + stretch * position[:, 2])
    shift_x, shift_y = (SHIFT * position[:, 3:]).unbind(dim=1)
    rows = (
        torch.stack([turn.cos() * wide, -turn.sin() * zoom, shift_x], dim=1),
        torch.stack([turn.sin() * wide, turn.cos() * zoom, shift_y], dim=1),
    )
    return torch.stack(rows, dim=1)


def _expose(images: Tensor, exposure: Tensor) -> Tensor:
    gamma, contrast, brightness = exposure[:, :, None, None, None].unbind(dim=1)
    bent = images.clamp_min(DARKEST) ** (GAMMA * gamma).exp()
    spread = (bent - 0.5) * (CONTRAST * contrast).exp() + 0.5
    return (spread + BRIGHTNESS * brightness).clamp(0, 1)
