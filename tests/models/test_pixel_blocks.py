import pytest
import torch

from cxrmodel.models import pixel_blocks
from cxrmodel.models.convolutions import doubling, halving


def gradients(layer, output):
    layer.zero_grad()
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    return [parameter.grad.clone() for parameter in layer.parameters()]


@pytest.mark.parametrize(
    ("make", "apply", "channels"),
    [(halving, pixel_blocks.halve, (1, 5)), (doubling, pixel_blocks.double, (5, 1))],
)
@pytest.mark.parametrize("side", [2, 8, 14])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_convolution(make, apply, channels, side, layout):
    torch.manual_seed(0)
    layer = make(*channels).double().to(memory_format=layout)
    features = torch.randn(3, channels[0], side, side, dtype=torch.float64)
    features = features.to(memory_format=layout).requires_grad_()
    expected, found = layer(features), apply(layer, features)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(gradients(layer, found), gradients(layer, expected), strict=True):
        torch.testing.assert_close(ours, theirs)
    ours, theirs = (
        torch.autograd.grad(output.square().sum(), features)[0]
        for output in (apply(layer, features), layer(features))
    )
    torch.testing.assert_close(ours, theirs)


def test_under_autocast_it_is_of_the_lower_precision():
    layer = halving(1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = pixel_blocks.halve(layer, torch.rand(2, 1, 8, 8))
        expected = layer(torch.rand(2, 1, 8, 8))
    assert found.dtype == expected.dtype == torch.bfloat16
