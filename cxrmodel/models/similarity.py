"""How alike two images look: SSIM at one scale and at five.

Sources: Z. Wang et al., Image quality assessment: from error visibility to structural similarity,
IEEE TIP 13 (2004); Z. Wang, E. Simoncelli, A. Bovik, Multiscale structural similarity for image
quality assessment, Asilomar 2003. The values are those of torchmetrics, which convolves whole
images with all 121 weights of the window: at 1,024 px that takes several times as long as encoding
and decoding them. Here the window goes along columns and then rows, as products with a band
matrix, over tiles that fit into the processor's cache. Gradients flow through both images.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

SIGMA_PX = 1.5
BORDER_PX = 5  # the window has 11 weights; images are mirrored beyond their borders by as many
C1, C2 = 0.01**2, 0.03**2  # for values in [0, 1]
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_MIN_PX = 161  # the smallest of five scales must hold a window
TILE_PX = 64


class Similarity(NamedTuple):
    """Scores of image pairs, each (B,), float32, at most 1, the score of equal images.

    Attributes:
        ssim: Mean structural similarity over all positions of a Gaussian window.
        ms_ssim: The same over five scales; NaN for images of less than 161 px a side.
    """

    ssim: Tensor
    ms_ssim: Tensor


def ssim_of(images: Tensor, others: Tensor) -> Tensor:
    """Return the structural similarity of images at one scale, (B,) of (B, 1, S, S) in [0, 1]."""
    return _mean_over_windows(images, others)[0]


def structural_similarity(images: Tensor, others: Tensor) -> Similarity:
    """Compare images one by one.

    Args:
        images: (B, 1, S, S), float32 in [0, 1].
        others: Of the same shape and scale.
    """
    ssim, contrast = _mean_over_windows(images, others)
    if images.shape[-1] < MS_SSIM_MIN_PX:
        return Similarity(ssim, torch.full_like(ssim, torch.nan))
    factors = [contrast]
    for _ in SCALE_WEIGHTS[1:]:
        images, others = (functional.avg_pool2d(image, 2) for image in (images, others))
        smaller, contrast = _mean_over_windows(images, others)
        factors.append(contrast)
    factors[-1] = smaller  # luminance counts at the last scale only
    weights = torch.tensor(SCALE_WEIGHTS, device=ssim.device)[:, None]
    return Similarity(ssim, (torch.stack(factors).relu() ** weights).prod(dim=0))


def _mean_over_windows(images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean similarity, and of windows inside the image the mean contrast, each (B,)."""
    batch, _, side, _ = images.shape
    maps = images.new_empty(2, batch, side, side)
    padded = [functional.pad(image, [BORDER_PX] * 4, mode="reflect") for image in (images, others)]
    for top in range(0, side, TILE_PX):
        for left in range(0, side, TILE_PX):
            reach = TILE_PX + 2 * BORDER_PX
            one, two = (image[:, 0, top : top + reach, left : left + reach] for image in padded)
            maps[:, :, top : top + TILE_PX, left : left + TILE_PX] = _similarity_maps(one, two)
    similarity, contrast = maps
    inside = contrast[:, BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
    return similarity.mean(dim=(1, 2)), inside.mean(dim=(1, 2))


def _similarity_maps(one: Tensor, two: Tensor) -> Tensor:
    """Return similarity, and its contrast and structure term: (2, B, H - 10, W - 10)."""
    moments = torch.stack([one, two, one.square() + two.square(), one * two])
    down, along = (_band_matrix(side, one.device) for side in one.shape[1:])
    mean_one, mean_two, squares, product = (down.T @ moments @ along).unbind()
    means_product, means_squares = mean_one * mean_two, mean_one.square() + mean_two.square()
    contrast = (2 * (product - means_product) + C2) / (squares - means_squares + C2)
    luminance = (2 * means_product + C1) / (means_squares + C1)
    return torch.stack([luminance * contrast, contrast])


@cache
@torch.inference_mode(mode=False)  # or the first caller would decide whether gradients can flow
def _band_matrix(side: int, device: torch.device) -> Tensor:
    """Return (side, side - 10): column i holds the window at rows i to i + 10."""
    offsets = torch.arange(side)[:, None] - torch.arange(side - 2 * BORDER_PX)
    window = torch.exp(-0.5 * ((offsets - BORDER_PX) / SIGMA_PX) ** 2)
    window[(offsets < 0) | (offsets > 2 * BORDER_PX)] = 0
    return (window / window.sum(dim=0)).to(device)
