"""Structural similarity equals torchmetrics'."""

import pytest
import torch
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from cxrmodel.models.similarity import structural_similarity


def smooth_images(side, count=3):
    noise = torch.rand(
        count, 1, side + 16, side + 16, generator=torch.Generator().manual_seed(side)
    )
    return torch.nn.functional.avg_pool2d(noise, 17, stride=1)


@pytest.mark.parametrize("side", [64, 128, 192, 320])
@pytest.mark.parametrize("error", [0.0, 0.02, 0.3])
def test_equals_torchmetrics(side, error):
    image = smooth_images(side)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    other = (image + error * noise).clamp(0, 1)
    found = structural_similarity(other, image)
    options = {"data_range": 1.0, "reduction": "none"}
    expected = structural_similarity_index_measure(other, image, **options)
    torch.testing.assert_close(found.ssim, expected, rtol=1e-4, atol=1e-5)
    if side <= 160:
        assert found.ms_ssim.isnan().all()
    else:
        scaled = multiscale_structural_similarity_index_measure(other, image, **options)
        torch.testing.assert_close(found.ms_ssim, scaled, rtol=1e-4, atol=1e-5)


def test_flat_images_differ_in_luminance_alone():
    black, grey = torch.zeros(1, 1, 192, 192), torch.full((1, 1, 192, 192), 0.5)
    found = structural_similarity(black, grey)
    luminance = 1e-4 / (0.25 + 1e-4)
    assert found.ssim.item() == pytest.approx(luminance, rel=1e-3)
    assert found.ms_ssim.item() == pytest.approx(luminance**0.1333, rel=1e-3)


def test_a_negative_has_no_multiscale_similarity():
    image = smooth_images(192, 1)
    spread = (image - image.mean()) * 8 + 0.5
    found = structural_similarity(spread, 1 - spread)
    assert found.ssim.item() < 0
    assert found.ms_ssim.item() == 0


@pytest.mark.parametrize("side", [64, 192])
def test_gradients_flow_even_after_a_call_that_wanted_none(side):
    image, target = smooth_images(side), smooth_images(side).flip(3)
    with torch.inference_mode():
        expected = structural_similarity(image, target)
    image.requires_grad_()
    found = structural_similarity(image, target)
    assert torch.equal(found.ssim, expected.ssim)
    score = found.ssim.mean() if side < 161 else found.ms_ssim.mean()
    score.backward()
    step = 1e-3 * image.grad / image.grad.abs().max()
    with torch.no_grad():
        better = structural_similarity(image + step, target)
    new_score = better.ssim.mean() if side < 161 else better.ms_ssim.mean()
    assert (new_score - score).item() == pytest.approx((step * image.grad).sum().item(), rel=0.1)
