"""The convolutions that halve or double the side of an image, computed as is fastest.

On a CPU a convolution and the activation after it are one kernel of oneDNN, which saves a pass over
the values between them and the memory for these. The backward pass sums the gradient of the bias
itself: oneDNN takes up to five times as long for it as for the gradient of the weights. These
operators are private to PyTorch. Once per process they are compared with the plain layers: where a
version of PyTorch lacks them, or they give other results, the plain layers run and the log says so.
Layers with more channels than pixels are trained by products of matrices, since oneDNN would spend
most of its time there on arranging their weights.

On a GPU the first and the last convolution are computed on blocks of 2 x 2 pixels. cuDNN has no
fast kernel for one channel: at 1024 px these two took half of a training step on an H200. A kernel
of 4 x 4 pixels with stride 2 is a kernel of 2 x 2 blocks with stride 1, and a block of one
channel's pixels is four channels, which matrix units can use. The products and their sums are the
same, in another order. On a CPU the forward pass of the last convolution is computed so as well.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise, product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

KERNEL_SIZE, STRIDE, PADDING = 4, 2, 1
NEGATIVE_SLOPE = 0.2
CONVOLUTION = (nn.Conv2d, nn.ConvTranspose2d)
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}  # of the largest value

logger = logging.getLogger(__name__)

_plain = False


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """Run the layers one by one, as `nn.Sequential` does: to export a network, or to compare.

    It applies to all threads of the process. The values are the same except for rounding.
    """
    global _plain  # noqa: PLW0603 - not a context variable: the backward pass has its own threads
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def halving(num_in: int, num_out: int) -> nn.Conv2d:
    """Return a convolution from (B, num_in, S, S) to (B, num_out, S / 2, S / 2)."""
    return nn.Conv2d(num_in, num_out, KERNEL_SIZE, STRIDE, PADDING)


def doubling(num_in: int, num_out: int) -> nn.ConvTranspose2d:
    """Return a convolution from (B, num_in, S, S) to (B, num_out, 2 S, 2 S)."""
    return nn.ConvTranspose2d(num_in, num_out, KERNEL_SIZE, STRIDE, PADDING)


class Convolutions(nn.Sequential):
    """Layers made by `halving` or `doubling`, each with its norm and activation, in order.

    The result is that of `nn.Sequential`, with one rounding less between a convolution and its
    activation in bfloat16.

    Args:
        layers: In order.
        gradient_checkpointing: Keep only the activations between pairs of convolutions, and compute
            the others again in the backward pass.
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
        elif isinstance(layer, CONVOLUTION) and is_for_pixel_blocks(layer, features):
            features = on_pixel_blocks(layer, features)
        else:
            features = layer(features)
    return features


def _is_for_one_kernel(features: Tensor) -> bool:
    # A compiler fuses by itself, and some releases get the shapes of these operators wrong; while a
    # network is traced for export, features have another type.
    if _plain or torch.compiler.is_compiling() or type(features) is not Tensor:
        return False
    if features.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    dtype = torch.get_autocast_dtype("cpu") if _is_autocast() else features.dtype
    return dtype in TOLERANCE and _is_usable(dtype)


def _is_autocast() -> bool:
    return torch.is_autocast_enabled("cpu")


@cache
def _is_usable(dtype: torch.dtype) -> bool:
    """Say whether the operators are there and give the results of the plain layers."""
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False  # the processor cannot, which is nothing to warn of
        error = max(_error(dtype, *kind) for kind in product((False, True), (None, NEGATIVE_SLOPE)))
        problem = "" if error <= TOLERANCE[dtype] else f"the results differ by {error:.2g}"
    except (AttributeError, RuntimeError, TypeError) as raised:  # not there, or other arguments
        problem = str(raised).partition("\n")[0]
    if problem:
        logger.warning(
            "PyTorch %s has no kernel for a convolution and its activation in %s (%s): they run "
            "one by one, more slowly.",
            torch.__version__,
            str(dtype).removeprefix("torch."),
            problem,
        )
    return not problem


@torch.inference_mode(mode=False)
@torch.enable_grad()
def _error(dtype: torch.dtype, is_transposed: bool, slope: float | None) -> float:
    """Return the largest difference of results and gradients, as a share of the largest value."""
    shapes = (2, 3, 8, 8), ((3, 4) if is_transposed else (4, 3)) + (KERNEL_SIZE,) * 2, (4,)
    given = [_wave(shape).to(dtype).requires_grad_() for shape in shapes]
    with torch.autocast("cpu", enabled=False):
        output = _ActivatedConvolution.apply(*given, is_transposed, slope, False)  # type: ignore[no-untyped-call]
        features, weight, bias = given
        convolve = functional.conv_transpose2d if is_transposed else functional.conv2d
        expected = convolve(features, weight, bias, STRIDE, PADDING)
        if slope is not None:
            expected = functional.leaky_relu(expected, slope)
        weights = _wave(tuple(expected.shape)).to(dtype)
        # Of a sum, since PyTorch imports sympy, for half a second, to take weights for a tensor.
        found = [output, *torch.autograd.grad((output * weights).sum(), given)]
        plain = [expected, *torch.autograd.grad((expected * weights).sum(), given)]
    errors = [
        ((one - two).abs().max() / two.abs().max()).item()
        for one, two in zip(found, plain, strict=True)
    ]
    # NaN counts as different; a missing gradient, or one of another shape, has raised.
    return max(float("inf") if error != error else error for error in errors)  # noqa: PLR0124


def _wave(shape: tuple[int, ...]) -> Tensor:
    """Return values that differ from each other, without a random number."""
    count = torch.Size(shape).numel()
    values = torch.arange(count, dtype=torch.float32, device="cpu")
    return (values * 0.7).sin().reshape(shape)


def _in_one_kernel(
    layer: nn.Conv2d | nn.ConvTranspose2d, slope: float | None, features: Tensor
) -> Tensor:
    tensors = [features, *layer.parameters()]  # weight and bias
    if _is_autocast():
        tensors = [tensor.to(torch.get_autocast_dtype("cpu")) for tensor in tensors]
    is_transposed = isinstance(layer, nn.ConvTranspose2d)
    # Without gradients no products: a latent must not depend on the images encoded beside it.
    by_products = torch.is_grad_enabled()
    activated: Tensor = _ActivatedConvolution.apply(  # type: ignore[no-untyped-call]
        *tensors, is_transposed, slope, by_products
    )
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
        by_products: bool,
    ) -> Tensor:
        activation = ("none", [], "") if slope is None else ("leaky_relu", [slope], "")
        padding, stride, dilation, groups = [PADDING] * 2, [STRIDE] * 2, [1, 1], 1
        output: Tensor
        if is_transposed and weight.shape[1] == 1 and slope is None:
            # oneDNN takes two to three times as long where the result has one channel.
            output = double(features, weight, bias)
        elif is_transposed:
            sizes = padding, [0, 0], stride, dilation, groups  # the second: output padding
            output = torch.ops.mkldnn._convolution_transpose_pointwise(
                features, weight, bias, *sizes, *activation
            )
        elif by_products and _has_few_pixels(
            weight, features.numel() // features.shape[1] // STRIDE**2
        ):
            output = _halve_by_product(features, weight, bias)
            if slope is not None:
                functional.leaky_relu_(output, slope)
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
        for output in outputs:  # the activation keeps the sign of its input
            gradient = torch.ops.aten.leaky_relu_backward(gradient, output, ctx.slope, True)
        wanted = [ctx.needs_input_grad[0], True]
        smaller, larger = (features, gradient) if ctx.is_transposed else (gradient, features)
        if _has_few_pixels(weight, smaller.numel() // smaller.shape[1]):
            of_weight = _weight_gradient_by_product(smaller, larger)
            if ctx.is_transposed:
                of_features = _halve_by_product(gradient, weight)
            else:
                of_features, _ = _gradients(gradient, features, weight, False, [wanted[0], False])
        else:
            of_features, of_weight = _gradients(
                gradient, features, weight, ctx.is_transposed, wanted
            )
        of_bias = gradient.sum(dim=(2, 3)).sum(dim=0)  # three times as fast as all three at once
        return of_features, of_weight, of_bias, None, None, None


def _gradients(
    gradient: Tensor, features: Tensor, weight: Tensor, is_transposed: bool, wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    """Return oneDNN's gradients of the features and of the weight; what is not wanted is None."""
    of_features, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient,
        features,
        weight,
        None,  # the sizes of the bias: its gradient is not computed here
        [STRIDE, STRIDE],
        [PADDING, PADDING],
        [1, 1],  # dilation
        is_transposed,
        [0, 0],  # output padding
        1,  # groups
        [*wanted, False],
    )
    return of_features, of_weight


def _has_few_pixels(weight: Tensor, num_pixels: int) -> bool:
    """Say whether the smaller side of a layer has no more pixels, of all images, than channels."""
    return num_pixels <= weight.shape[0]


def _halve_by_product(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a convolution: (B, C, S, S) and a weight of (K, C, 4, 4) to (B, K, S/2, S/2)."""
    matrix = weight.permute(0, 2, 3, 1).flatten(1)
    return functional.linear(_patches(features), matrix, bias).permute(0, 3, 1, 2)


def _weight_gradient_by_product(smaller: Tensor, larger: Tensor) -> Tensor:
    """Return a layer's (K, C, 4, 4) from its (B, K, S/2, S/2) and its (B, C, S, S).

    One of them is what went in, the other the gradient of what came out.
    """
    pixels = smaller.permute(0, 2, 3, 1).flatten(0, 2)
    product = pixels.T @ _patches(larger).flatten(0, 2)
    shape = smaller.shape[1], KERNEL_SIZE, KERNEL_SIZE, larger.shape[1]
    return product.view(shape).permute(0, 3, 1, 2)


def _patches(features: Tensor) -> Tensor:
    """Return (B, S/2, S/2, 16 C), what each position of the kernel sees of (B, C, S, S)."""
    rows = functional.pad(features.permute(0, 2, 3, 1), (0, 0, *(PADDING,) * 4))
    patches = rows.unfold(1, KERNEL_SIZE, STRIDE).unfold(2, KERNEL_SIZE, STRIDE)
    return patches.permute(0, 1, 2, 4, 5, 3).flatten(3)


def is_for_pixel_blocks(layer: nn.Conv2d | nn.ConvTranspose2d, features: Tensor) -> bool:
    """Say whether a convolution is faster on blocks of 2 x 2 pixels."""
    one = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.out_channels
    return features.is_cuda and one == 1


def on_pixel_blocks(layer: nn.Conv2d | nn.ConvTranspose2d, features: Tensor) -> Tensor:
    """Apply a convolution on blocks of 2 x 2 pixels."""
    if isinstance(layer, nn.Conv2d):
        return halve(features, layer.weight, layer.bias)
    return double(features, layer.weight, layer.bias)


def halve(image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a convolution of one input channel on blocks of 2 x 2 pixels.

    Args:
        image: (B, 1, S, S), S even.
        weight: (C, 1, 4, 4).
        bias: (C,).

    Returns:
        (B, C, S / 2, S / 2), channels last.
    """
    weight = weight.reshape(-1, 2, 2, 2, 2)  # (C, block y, y, block x, x)
    weight = weight.permute(0, 2, 4, 1, 3).reshape(-1, 4, 2, 2)  # a channel per pixel of a block
    if torch.is_autocast_enabled(image.device.type):
        image = image.to(torch.get_autocast_dtype(image.device.type))  # half the bytes to arrange
    num_blocks = image.shape[-1] // 2 + 1
    padded = nn.functional.pad(image, (1, 1, 1, 1))
    blocks = padded.view(-1, num_blocks, 2, num_blocks, 2).permute(0, 1, 3, 2, 4)
    blocks = blocks.reshape(-1, num_blocks, num_blocks, 4).permute(0, 3, 1, 2)  # channels last
    return nn.functional.conv2d(blocks, weight, bias)


def double(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a transposed convolution of one output channel on blocks of 2 x 2 pixels.

    Args:
        features: (B, C, S, S).
        weight: (C, 1, 4, 4).
        bias: (1,).

    Returns:
        (B, 1, 2 S, 2 S).
    """
    # A pixel at an even position sums the kernel's odd rows, and one at an odd position its even
    # rows, with the later row of the kernel for the earlier row of features.
    weight = weight.reshape(-1, 2, 2, 2, 2).flip(1, 3)  # (C, row, y, column, x)
    weight = weight.permute(2, 4, 0, 1, 3).reshape(4, -1, 2, 2)
    bias = None if bias is None else bias.expand(4)
    blocks = nn.functional.conv2d(features, weight, bias, padding=1)  # (B, 4, S + 1, S + 1)
    num_blocks = blocks.shape[-1]
    pixels = blocks.permute(0, 2, 3, 1).reshape(-1, num_blocks, num_blocks, 2, 2)
    pixels = pixels.permute(0, 1, 3, 2, 4).reshape(-1, 1, 2 * num_blocks, 2 * num_blocks)
    return nn.functional.pad(pixels, (-1, -1, -1, -1))  # each outermost pixel lies outside
