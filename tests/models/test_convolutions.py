from itertools import pairwise

import pytest
import torch
from torch import nn

from cxrmodel.models import convolutions
from cxrmodel.models.convolutions import Convolutions, doubling, halving

CHANNELS = (1, 4, 8, 8)


def layers_of(make, *, normed=False):
    """Return three convolutions; the first and the second activated, the second maybe normed."""
    pairs = list(pairwise(CHANNELS if make is halving else reversed(CHANNELS)))
    first, second, third = (make(*channels) for channels in pairs)
    norm = [nn.GroupNorm(4, pairs[1][1])] if normed else []
    return [first, nn.LeakyReLU(0.2), second, *norm, nn.LeakyReLU(0.2), third]


def gradients(network, image):
    """Return what a network makes of an image, and the gradients of everything."""
    network.zero_grad()
    given = image.clone().requires_grad_()
    output = network(given)
    output.float().square().sum().backward()
    return [output, given.grad, *(weight.grad.clone() for weight in network.parameters())]


def assert_alike(found, expected, share):
    """Differences are small beside the largest value; a gradient may be zero but for rounding."""
    zero = 1e-6 * max(tensor.abs().max().item() for tensor in expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        largest = theirs.abs().max().item()
        torch.testing.assert_close(ours, theirs, atol=share * largest + zero, rtol=0)


@pytest.fixture
def image():
    return torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last])
def memory_format(request):
    return request.param


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("make", [halving, doubling])
def test_they_are_what_they_are_one_by_one(make, normed, memory_format):
    torch.manual_seed(0)
    network = Convolutions(*layers_of(make, normed=normed)).to(memory_format=memory_format)
    features = torch.rand(2, CHANNELS[0 if make is halving else -1], 16, 16)
    found, plain = gradients(network, features), gradients(nn.Sequential(*network), features)
    assert_alike(found, plain, share=1e-5)


@pytest.mark.parametrize("make", [halving, doubling])
def test_in_bfloat16_they_are_so_but_for_a_rounding(make, memory_format):
    torch.manual_seed(0)
    network = Convolutions(*layers_of(make)).to(memory_format=memory_format)
    features = torch.rand(2, CHANNELS[0 if make is halving else -1], 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(network, features)
        plain = gradients(nn.Sequential(*network), features)
    assert found[0].dtype == torch.bfloat16
    assert_alike(found, plain, share=0.02)


def test_what_has_no_such_kernel_goes_through_the_layers(monkeypatch, image):
    def refuse(*_):
        raise AssertionError("no kernel of oneDNN is for this")

    network = Convolutions(*layers_of(halving)).double()
    expected = nn.Sequential(*network)(image.double())
    monkeypatch.setattr(convolutions, "_in_one_kernel", refuse)
    assert torch.equal(network(image.double()), expected)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert network.float()(image).dtype == torch.float32


def test_one_kernel_stands_for_a_convolution_and_its_activation(monkeypatch, image):
    slopes = []
    in_one_kernel = convolutions._in_one_kernel

    def noted(layer, slope, features):
        slopes.append(slope)
        return in_one_kernel(layer, slope, features)

    monkeypatch.setattr(convolutions, "_in_one_kernel", noted)
    Convolutions(*layers_of(halving, normed=True))(image)
    assert slopes == [0.2, None, None]


@pytest.mark.parametrize("normed", [False, True])
def test_with_gradient_checkpointing_they_are_the_same_to_the_bit(image, normed):
    plain = Convolutions(*layers_of(halving, normed=normed))
    checkpointed = Convolutions(*plain, gradient_checkpointing=True)
    for ours, theirs in zip(gradients(checkpointed, image), gradients(plain, image), strict=True):
        assert torch.equal(ours, theirs)


def test_weights_that_autocast_rounds_get_gradients_of_their_own_type(image):
    network = Convolutions(halving(1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        network(image).float().sum().backward()
    assert {weight.grad.dtype for weight in network.parameters()} == {torch.float32}
    assert network[0].bias.grad.tolist() == [512, 512]  # one a pixel of 2 images of 16 x 16
