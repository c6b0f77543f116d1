"""Sharpness: exact on simple images, lower in a blurred one, the same at other contrasts."""

import numpy as np
import pytest

from cxrmodel.inference.sharpness import sharpness


def test_of_stripes_one_pixel_wide_and_of_one_grey():
    stripes = np.tile(np.array([0, 200], np.uint8), (8, 4))
    flat = np.full((8, 8), 7, np.uint8)
    assert sharpness(np.stack([stripes, flat])).tolist() == [400 / 100, 0]


def test_falls_with_blur_and_not_with_contrast():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 200, (64, 64)).astype(np.uint8)
    blurred = ((image.astype(int) + np.roll(image, 1, axis=0)) // 2).astype(np.uint8)
    sharp, soft, dark = sharpness(np.stack([image, blurred, image // 2]))
    assert soft < 0.8 * sharp
    assert dark == pytest.approx(sharp, rel=0.02)
