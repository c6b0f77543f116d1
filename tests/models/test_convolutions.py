import logging
import warnings
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cxrmodel.models import convolutions, plain_convolutions
from cxrmodel.models.convolutions import Convolutions, double, doubling, halve, halving

CHANNELS = (1, 4, 8, 8)


def layers_of(make, *, normed=False):
    """Return three convolutions; the first and the second activated, the second maybe normed."""
    pairs = list(pairwise(CHANNELS if make is halving else reversed(CHANNELS)))
    first, second, third = (make(*channels) for channels in pairs)
    norm = [nn.GroupNorm(4, pairs[1][1])] if normed else []
    return [first, nn.LeakyReLU(0.2), second, *norm, nn.LeakyReLU(0.2), third]


def gradients(network, image):
    """Return the output for an image, and all gradients."""
    network.zero_grad()
    given = image.clone().requires_grad_()
    output = network(given)
    output.float().square().sum().backward()
    return [output, given.grad, *(weight.grad.clone() for weight in network.parameters())]


def assert_alike(found, expected, share):
    """Differences are small compared with the largest value; a gradient may be nearly zero."""
    zero = 1e-5 * max(tensor.abs().max().item() for tensor in expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        largest = theirs.abs().max().item()
        torch.testing.assert_close(ours, theirs, atol=share * largest + zero, rtol=0)


@pytest.fixture
def try_again():
    """Try the operators anew, before and after."""
    convolutions._is_usable.cache_clear()
    yield
    convolutions._is_usable.cache_clear()


def refuse(*_):
    raise AssertionError("no kernel of oneDNN is for this")


@pytest.fixture
def image():
    return torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last])
def memory_format(request):
    return request.param


# The shorter sides leave two of the three layers with no more pixels than channels.
SIDES = [(halving, 32), (halving, 8), (doubling, 16), (doubling, 1)]


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(("make", "side"), SIDES)
def test_fused_layers_equal_the_plain_ones(make, side, normed, memory_format):
    torch.manual_seed(0)
    network = Convolutions(*layers_of(make, normed=normed)).to(memory_format=memory_format)
    features = torch.rand(2, CHANNELS[0 if make is halving else -1], side, side)
    found, plain = gradients(network, features), gradients(nn.Sequential(*network), features)
    assert_alike(found, plain, share=1e-5)


@pytest.mark.parametrize(("make", "side"), SIDES)
def test_fused_layers_in_bfloat16_differ_by_a_rounding_alone(make, side, memory_format):
    torch.manual_seed(0)
    network = Convolutions(*layers_of(make)).to(memory_format=memory_format)
    features = torch.rand(2, CHANNELS[0 if make is halving else -1], side, side)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(network, features)
        plain = gradients(nn.Sequential(*network), features)
    assert found[0].dtype == torch.bfloat16
    assert_alike(found, plain, share=0.02)


@pytest.mark.parametrize(("make", "side"), SIDES)
def test_layers_with_few_pixels_learn_by_products_of_matrices(monkeypatch, make, side):
    by_convolution, one_dnn = [], convolutions._gradients

    def noted(*arguments):
        by_convolution.append(arguments[-1][1])
        return one_dnn(*arguments)

    network = Convolutions(*layers_of(make))
    features = torch.rand(2, CHANNELS[0 if make is halving else -1], side, side)
    network(features)  # the operators have been tried
    monkeypatch.setattr(convolutions, "_gradients", noted)
    gradients(network, features)
    assert sum(by_convolution) == (3 if side > 8 else 1)


def test_without_gradients_products_are_not_used_so_that_latents_do_not_depend_on_the_batch(
    monkeypatch,
):
    monkeypatch.setattr(convolutions, "_halve_by_product", refuse)
    network = Convolutions(*layers_of(halving))
    with torch.no_grad():
        network(torch.rand(1, 1, 8, 8))
    with pytest.raises(AssertionError, match="no kernel"):
        network(torch.rand(1, 1, 8, 8))


def test_where_there_is_no_fused_kernel_the_plain_layers_run(monkeypatch, image):
    network = Convolutions(*layers_of(halving)).double()
    expected = nn.Sequential(*network)(image.double())
    monkeypatch.setattr(convolutions, "_in_one_kernel", refuse)
    assert torch.equal(network(image.double()), expected)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert network.float()(image).dtype == torch.float32


def test_one_kernel_computes_a_convolution_and_its_activation(monkeypatch, image):
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


def test_on_request_the_layers_run_one_by_one(monkeypatch, image):
    network = Convolutions(*layers_of(halving))
    expected = nn.Sequential(*network)(image)
    with monkeypatch.context() as patch:
        patch.setattr(convolutions, "_in_one_kernel", refuse)
        with plain_convolutions(), plain_convolutions():
            pass
        with plain_convolutions():
            assert torch.equal(network(image), expected)
        with pytest.raises(AssertionError):
            network(image)
    with pytest.raises(ZeroDivisionError), plain_convolutions():
        raise ZeroDivisionError
    monkeypatch.setattr(convolutions, "_in_one_kernel", refuse)
    with pytest.raises(AssertionError):
        network(image)


def test_a_network_is_exported_without_the_private_operators(image):
    network = Convolutions(*layers_of(halving))
    exported = torch.export.export(network, (image,)).module()
    assert "mkldnn" not in exported.code
    torch.testing.assert_close(exported(image), network(image))


TRANSPOSED = torch.ops.mkldnn._convolution_transpose_pointwise


def wrong_pointwise(*_):
    return torch.zeros(2, 4, 4, 4)


def other_arguments(features):
    raise AssertionError("it is called with more")


@pytest.mark.parametrize(
    ("operators", "said"),
    [
        ({}, "has no attribute"),
        (
            {
                "_convolution_pointwise": wrong_pointwise,
                "_convolution_transpose_pointwise": TRANSPOSED,
            },
            "the results differ",
        ),
        ({"_convolution_pointwise": other_arguments}, "positional argument"),
    ],
)
def test_without_the_operators_the_layers_run_one_by_one(
    monkeypatch, image, caplog, try_again, operators, said
):
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**operators))
    network = Convolutions(*layers_of(halving))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(network(image), nn.Sequential(*network)(image))
    (record,) = caplog.records
    assert said in record.message
    assert "in float32" in record.message


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
def test_the_operators_are_tried_wherever_they_are_first_needed(image, caplog, try_again, context):
    network = Convolutions(*layers_of(halving))
    before = torch.get_rng_state()
    with caplog.at_level(logging.WARNING), context(), torch.autocast("cpu", torch.bfloat16):
        network(image)
    assert caplog.records == []  # not of a processor that cannot either
    assert convolutions._is_usable(torch.bfloat16) == torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_compiler_takes_the_trial_as_it_is(image, caplog, try_again):
    network = Convolutions(*layers_of(halving))
    torch.compiler.reset()
    with caplog.at_level(logging.WARNING, logger="cxrmodel"), warnings.catch_warnings():
        warnings.filterwarnings("error", message="Dynamo detected a call to a `functools.lru_cache")
        compiled = torch.compile(network, backend="eager")
        assert torch.equal(compiled(image), network(image))
    assert [record for record in caplog.records if record.name.startswith("cxrmodel")] == []
    assert convolutions._is_usable(torch.float32)


def weight_gradients(layer, output):
    layer.zero_grad()
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    return [parameter.grad.clone() for parameter in layer.parameters()]


@pytest.mark.parametrize(
    ("make", "apply", "channels"),
    [(halving, halve, (1, 5)), (doubling, double, (5, 1))],
)
@pytest.mark.parametrize("side", [2, 8, 14])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_on_blocks_of_pixels_it_is_the_convolution(make, apply, channels, side, layout):
    torch.manual_seed(0)
    layer = make(*channels).double().to(memory_format=layout)
    features = torch.randn(3, channels[0], side, side, dtype=torch.float64)
    features = features.to(memory_format=layout).requires_grad_()
    expected, found = layer(features), apply(features, layer.weight, layer.bias)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        weight_gradients(layer, found), weight_gradients(layer, expected), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    ours, theirs = (
        torch.autograd.grad(output.square().sum(), features)[0]
        for output in (apply(features, layer.weight, layer.bias), layer(features))
    )
    torch.testing.assert_close(ours, theirs)


def test_on_blocks_autocast_lowers_the_precision():
    layer = halving(1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = halve(torch.rand(2, 1, 8, 8), layer.weight, layer.bias)
        expected = layer(torch.rand(2, 1, 8, 8))
    assert found.dtype == expected.dtype == torch.bfloat16
