"""Where the boxes of a file lie on the square that the model sees."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.data.datasets.boxes import BOX_GRID_PX

Fit = Literal["crop", "pad", "resize"]
PLACED = ["left", "top", "right", "bottom"]


def boxes_on_square(boxes: pd.DataFrame, fit: Fit) -> NDArray[np.float64]:
    """Follow boxes through the fit that `decode_image` gives their file.

    Args:
        boxes: K rows with `x`, `y`, `width`, `height` (from the file's top left corner, on a grid
            of `BOX_GRID_PX` along each of its sides) and `file_width`, `file_height` (px).
        fit: How another shape becomes square.

    Returns:
        (K, 4): left, top, right and bottom in [0, 1] of the square's side; of no area where a crop
        cuts the whole box off.
    """
    corners = boxes[["x", "y"]].to_numpy(dtype=np.float64)  # (K, 2)
    sides = boxes[["width", "height"]].to_numpy(dtype=np.float64)
    files = boxes[["file_width", "file_height"]].to_numpy(dtype=np.float64)
    scale = (files / BOX_GRID_PX)[:, None]  # 1 for NIH's own files, 0.5 for copies of 512 px
    edges = np.stack([corners, corners + sides], axis=1) * scale  # (K, 2, 2): corner, axis
    if fit == "resize":
        placed = edges / files[:, None]
    else:
        square = files.min(axis=1) if fit == "crop" else files.max(axis=1)
        placed = (edges - ((files - square[:, None]) / 2)[:, None]) / square[:, None, None]
    return np.asarray(placed.clip(0, 1).reshape(len(boxes), 4))


def mask_of(placed: NDArray[np.float64], side: int) -> NDArray[np.bool_]:
    """Return (side, side), true where the centre of a pixel lies in any of (K, 4) boxes."""
    mask = np.zeros((side, side), dtype=bool)
    for left, top, right, bottom in np.ceil(placed * side - 0.5).astype(int):
        mask[top:bottom, left:right] = True
    return mask


def are_inside(points: NDArray[np.float64], placed: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say which of (N, 2) points, x and y, lie in any of (K, 4) boxes; their right edge is out."""
    starts, ends = placed[:, :2], placed[:, 2:]
    within = (points[:, None] >= starts) & (points[:, None] < ends)  # (N, K, 2)
    return np.asarray(np.any(np.all(within, axis=2), axis=1))
