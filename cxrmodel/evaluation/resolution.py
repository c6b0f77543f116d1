"""Images at another resolution, for thumbnails and to compare reconstructions at one size."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional


def to_unit(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale (B, S, S) pixels to [0, 1]."""
    return images.astype(np.float32) / np.float32(255)


def shrink(images: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Average (B, S, S) images over areas, to at most `size` pixels a side."""
    if images.shape[-1] <= size:
        return images
    batch = torch.from_numpy(images)[:, None]  # (B, 1, S, S)
    small = functional.interpolate(batch, size=(size, size), mode="area")
    return np.asarray(small[:, 0].numpy(), dtype=np.float32)


def enlarge(images: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Interpolate (B, s, s) images bilinearly to `size` pixels a side."""
    if images.shape[-1] == size:
        return images
    batch = torch.from_numpy(images)[:, None]  # (B, 1, s, s)
    large = functional.interpolate(batch, size=(size, size), mode="bilinear", align_corners=False)
    return np.asarray(large[:, 0].numpy(), dtype=np.float32)
