"""The convolutions that halve or double the side of an image, as fast as a CPU can train them.

There a convolution and the activation behind it are one kernel of oneDNN, which saves a pass over
what lies between them and the memory for it; a backward pass sums the gradient of the bias itself,
for which oneDNN takes up to five times as long as for that of the weights.

The operators are private to PyTorch. Once in a process they are tried beside the layers one by one:
where another version of PyTorch lacks them, or they give something else, the layers run one by one,
and a line in the log says so.
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

from cxrmodel.models import pixel_blocks

KERNEL_SIZE, STRIDE, PADDING = 4, 2, 1
NEGATIVE_SLOPE = 0.2
CONVOLUTION = (nn.Conv2d, nn.ConvTranspose2d)
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}  # of the largest value

logger = logging.getLogger(__name__)

_plain = False


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """Run the layers one by one, as `nn.Sequential` does: to export a network, or to compare.

    It holds for all threads of the process. The values are the same but for rounding.
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
    # A compiler fuses by itself, and some releases mistake the shapes of these operators; while a
    # network is traced for export, features are of another type.
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
    """Say whether the operators are there, and give what the layers give one by one."""
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False  # the processor's lack, not PyTorch's
        error = max(_error(dtype, *kind) for kind in product((False, True), (None, NEGATIVE_SLOPE)))
        problem = "" if error <= TOLERANCE[dtype] else f"the results differ by {error:.2g}"
    except (AttributeError, RuntimeError, TypeError) as raised:  # not there, or of other arguments
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
        output = _ActivatedConvolution.apply(*given, is_transposed, slope)  # type: ignore[no-untyped-call]
        features, weight, bias = given
        convolve = functional.conv_transpose2d if is_transposed else functional.conv2d
        expected = convolve(features, weight, bias, STRIDE, PADDING)
        if slope is not None:
            expected = functional.leaky_relu(expected, slope)
        weights = _wave(tuple(expected.shape)).to(dtype)
        found = [output, *torch.autograd.grad(output, given, weights)]
        plain = [expected, *torch.autograd.grad(expected, given, weights)]
    errors = [
        ((one - two).abs().max() / two.abs().max()).item()
        for one, two in zip(found, plain, strict=True)
    ]
    # NaN is no agreement; a gradient that is lacking or of another shape has raised.
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
