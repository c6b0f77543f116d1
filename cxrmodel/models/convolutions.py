"""The convolutions that halve or double the side of an image, as fast as a CPU can train them.

There a convolution and the activation behind it are one kernel of oneDNN, which saves a pass over
what lies between them and the memory for it; a backward pass sums the gradient of the bias itself,
for which oneDNN takes up to five times as long as for that of the weights.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cxrmodel.models import pixel_blocks

KERNEL_SIZE, STRIDE, PADDING = 4, 2, 1
NEGATIVE_SLOPE = 0.2
CONVOLUTION = (nn.Conv2d, nn.ConvTranspose2d)
ONE_KERNEL_TYPES = (torch.float32, torch.bfloat16)


def halving(num_in: int, num_out: int) -> nn.Conv2d:
    """Return a convolution from (B, num_in, S, S) to (B, num_out, S / 2, S / 2)."""
    return nn.Conv2d(num_in, num_out, KERNEL_SIZE, STRIDE, PADDING)


def doubling(num_in: int, num_out: int) -> nn.ConvTranspose2d:
    """Return a convolution from (B, num_in, S, S) to (B, num_out, 2 S, 2 S)."""
    return nn.ConvTranspose2d(num_in, num_out, KERNEL_SIZE, STRIDE, PADDING)


class Convolutions(nn.Sequential):
    """Layers made by `halving` or `doubling`, each with its norm and activation, in order.

    The result is that of `nn.Sequential`; in bfloat16 but for one rounding less between a
    convolution and its activation.

    Args:
        layers: In order.
        gradient_checkpointing: Keep what lies between pairs of convolutions only, and compute the
            rest again in the backward pass.
    """

    def __init__(self, *layers: nn.Module, gradient_checkpointing: bool = False) -> None:
        super().__init__(*layers)
        self._gradient_checkpointing = gradient_checkpointing

    def forward(self, features: Tensor) -> Tensor:
        """Apply all layers."""
        layers = list(self)
        if not (self._gradient_checkpointing and torch.is_grad_enabled()):
            return _apply(layers, features)
        starts = [number for number, layer in enumerate(layers) if isinstance(layer, CONVOLUTION)]
        for start, end in pairwise([*starts[::2], len(layers)]):
            features = checkpoint(
                _apply, layers[start:end], features, use_reentrant=False, preserve_rng_state=False
            )
        return features


def _apply(layers: list[nn.Module], features: Tensor) -> Tensor:
    waiting = deque(layers)
    while waiting:
        layer = waiting.popleft()
        if isinstance(layer, CONVOLUTION) and _is_for_one_kernel(features):
            slope = None
            if waiting and isinstance(waiting[0], nn.LeakyReLU):
                slope = waiting[0].negative_slope
                waiting.popleft()
            features = _in_one_kernel(layer, slope, features)
        elif isinstance(layer, CONVOLUTION) and pixel_blocks.suits(layer, features):
            features = pixel_blocks.apply(layer, features)
        else:
            features = layer(features)
    return features


def _is_for_one_kernel(features: Tensor) -> bool:
    if features.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    dtype = torch.get_autocast_dtype("cpu") if _is_autocast() else features.dtype
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return dtype in ONE_KERNEL_TYPES


def _is_autocast() -> bool:
    return torch.is_autocast_enabled("cpu")


def _in_one_kernel(
    layer: nn.Conv2d | nn.ConvTranspose2d, slope: float | None, features: Tensor
) -> Tensor:
    tensors = [features, *layer.parameters()]  # weight and bias
    if _is_autocast():
        tensors = [tensor.to(torch.get_autocast_dtype("cpu")) for tensor in tensors]
    is_transposed = isinstance(layer, nn.ConvTranspose2d)
    activated: Tensor = _ActivatedConvolution.apply(*tensors, is_transposed, slope)  # type: ignore[no-untyped-call]
    return activated


class _ActivatedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        is_transposed: bool,
        slope: float | None,
    ) -> Tensor:
        activation = ("none", [], "") if slope is None else ("leaky_relu", [slope], "")
        padding, stride, dilation, groups = [PADDING] * 2, [STRIDE] * 2, [1, 1], 1
        output: Tensor
        if is_transposed:
            sizes = padding, [0, 0], stride, dilation, groups  # the second: output padding
            output = torch.ops.mkldnn._convolution_transpose_pointwise(
                features, weight, bias, *sizes, *activation
            )
        else:
            output = torch.ops.mkldnn._convolution_pointwise(
                features, weight, bias, padding, stride, dilation, groups, *activation
            )
        ctx.is_transposed, ctx.slope = is_transposed, slope
        ctx.save_for_backward(features, weight, *([] if slope is None else [output]))
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        features, weight, *outputs = ctx.saved_tensors
        for output in outputs:  # of an activation, whose sign is that of its input
            gradient = torch.ops.aten.leaky_relu_backward(gradient, output, ctx.slope, True)
        of_features, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient,
            features,
            weight,
            None,  # the sizes of a bias whose gradient it would compute
            [STRIDE, STRIDE],
            [PADDING, PADDING],
            [1, 1],  # dilation
            ctx.is_transposed,
            [0, 0],  # output padding
            1,  # groups
            [ctx.needs_input_grad[0], True, False],  # which of the three gradients to compute
        )
        of_bias = gradient.sum(dim=(2, 3)).sum(dim=0)  # three times as fast as all three at once
        return of_features, of_weight, of_bias, None, None
