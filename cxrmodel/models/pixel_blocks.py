"""The first and the last convolution on a GPU, computed on blocks of 2 x 2 pixels.

cuDNN has no fast kernel for one channel: at 1024 px the first convolution and the last took half
of a training step on an H200. A kernel of 4 x 4 pixels that moves by 2 is one of 2 x 2 blocks that
moves by 1, and a block of one channel's pixels is four channels, which matrix units can use. The
products and their sums are the same, in another order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def suits(layer: nn.Conv2d | nn.ConvTranspose2d, features: Tensor) -> bool:
    """Say whether a convolution of kernel 4 and stride 2 is faster on blocks."""
    one = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.out_channels
    return features.is_cuda and one == 1


def apply(layer: nn.Conv2d | nn.ConvTranspose2d, features: Tensor) -> Tensor:
    """Apply a convolution that `suits`."""
    if isinstance(layer, nn.Conv2d):
        return halve(layer, features)
    return double(layer, features)


def halve(layer: nn.Conv2d, image: Tensor) -> Tensor:
    """Apply a convolution of one input channel, kernel 4, stride 2 and padding 1.

    Args:
        layer: With weight (C, 1, 4, 4).
        image: (B, 1, S, S), S even.

    Returns:
        (B, C, S / 2, S / 2), channels last.
    """
    weight = layer.weight.reshape(-1, 2, 2, 2, 2)  # (C, block y, y, block x, x)
    weight = weight.permute(0, 2, 4, 1, 3).reshape(-1, 4, 2, 2)  # a channel per pixel of a block
    if torch.is_autocast_enabled(image.device.type):
        image = image.to(torch.get_autocast_dtype(image.device.type))  # half the bytes to arrange
    num_blocks = image.shape[-1] // 2 + 1
    padded = nn.functional.pad(image, (1, 1, 1, 1))
    blocks = padded.view(-1, num_blocks, 2, num_blocks, 2).permute(0, 1, 3, 2, 4)
    blocks = blocks.reshape(-1, num_blocks, num_blocks, 4).permute(0, 3, 1, 2)  # channels last
    return nn.functional.conv2d(blocks, weight, layer.bias)


def double(layer: nn.ConvTranspose2d, features: Tensor) -> Tensor:
    """Apply a transposed convolution of one output channel, kernel 4, stride 2 and padding 1.

    Args:
        layer: With weight (C, 1, 4, 4).
        features: (B, C, S, S).

    Returns:
        (B, 1, 2 S, 2 S).
    """
    # A pixel at an even place sums the kernel's odd rows and one at an odd place its even ones, the
    # later row of the kernel for the earlier row of features.
    weight = layer.weight.reshape(-1, 2, 2, 2, 2).flip(1, 3)  # (C, row, y, column, x)
    weight = weight.permute(2, 4, 0, 1, 3).reshape(4, -1, 2, 2)
    bias = None if layer.bias is None else layer.bias.expand(4)
    blocks = nn.functional.conv2d(features, weight, bias, padding=1)  # (B, 4, S + 1, S + 1)
    num_blocks = blocks.shape[-1]
    pixels = blocks.permute(0, 2, 3, 1).reshape(-1, num_blocks, num_blocks, 2, 2)
    pixels = pixels.permute(0, 1, 3, 2, 4).reshape(-1, 1, 2 * num_blocks, 2 * num_blocks)
    return nn.functional.pad(pixels, (-1, -1, -1, -1))  # each outermost pixel lies outside
