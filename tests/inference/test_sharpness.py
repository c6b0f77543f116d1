"""Sharpness: right on simple images, lower in a blurred one, the same at other contrasts."""

import pytest
import torch

from cxrmodel.inference.sharpness import sharpness


def test_of_stripes_one_pixel_wide_and_of_one_grey():
    stripes = torch.tensor([0.0, 200.0]).repeat(8, 4)
    flat = torch.full((8, 8), 7 / 255)
    across, down, none = sharpness(torch.stack([stripes, stripes.T, flat])[:, None]).tolist()
    assert (across, down, none) == (400 / 100, 400 / 100, 0)


@pytest.mark.gpu
def test_falls_with_blur_and_not_with_contrast(device):
    image = torch.rand((64, 64), generator=torch.Generator().manual_seed(0))
    blurred = (image + image.roll(1, dims=0)) / 2
    batch = torch.stack([image, blurred, image / 2])[:, None]
    sharp, soft, faint = sharpness(batch.to(device)).tolist()
    assert soft < 0.8 * sharp
    assert faint == pytest.approx(sharp, rel=1e-5)
    assert sharp == pytest.approx(sharpness(batch)[0].item(), rel=1e-5)
