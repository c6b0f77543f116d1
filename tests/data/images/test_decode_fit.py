"""How images of any shape become square, against numbers worked out by hand."""

import numpy as np
import pytest
from PIL import Image

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.decode import decode_image
from tests.data.images.image_bytes import encode, noise

CONFIG = ImagesConfig(size=64)


def fitted(pixels, fit):
    decoded = decode_image(encode(pixels), ImagesConfig(size=64, fit=fit))
    assert (decoded.height, decoded.width) == pixels.shape
    return decoded.pixels


class TestCrop:
    def test_takes_the_centre_square(self):
        wide = noise(64, 101)
        np.testing.assert_array_equal(fitted(wide, "crop"), wide[:, 18:82])  # (101 - 64) // 2

    def test_scales_the_centre_square_down(self):
        tall = noise(200, 128)  # square: rows 36 to 164
        expected = Image.fromarray(tall[36:164]).resize((64, 64), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(fitted(tall, "crop"), np.asarray(expected))

    def test_nothing_from_outside_the_square_shines_in(self):
        wide = np.full((128, 256), 255, np.uint8)
        wide[:, 64:192] = 0
        assert fitted(wide, "crop").max() == 0


class TestPad:
    def test_centres_between_black_borders(self):
        padded = fitted(np.full((64, 32), 200, np.uint8), "pad")
        assert (padded[:, 16:48] == 200).all()
        assert padded.sum() == 64 * 32 * 200

    def test_keeps_the_proportions_when_it_scales(self):
        padded = fitted(np.full((96, 256), 200, np.uint8), "pad")  # 24 rows of 64
        assert (padded[20:44] == 200).all()
        assert padded.sum() == 24 * 64 * 200

    def test_an_odd_border_is_one_wider_at_the_far_side(self):
        padded = fitted(np.full((64, 61), 200, np.uint8), "pad")
        assert np.flatnonzero(padded[0]).tolist() == list(range(1, 62))


class TestResize:
    def test_stretches(self):
        wide = np.repeat(np.array([[0, 255]], np.uint8), 64, axis=1).repeat(32, axis=0)
        stretched = fitted(wide, "resize")
        assert (stretched[:, :31] == 0).all()
        assert (stretched[:, 33:] == 255).all()

    def test_halving_weighs_four_neighbours_by_a_triangle(self):
        # At half size the triangle reaches 2 px from each centre: weights 1 3 3 1 of 8.
        bars = np.tile(np.array([0, 0, 0, 0, 0, 0, 0, 240] * 16, np.uint8), (64, 1))
        assert fitted(bars, "resize")[0, 4:8].tolist() == [30, 0, 0, 90]

    def test_doubling_lies_between_neighbours(self):
        steps = np.tile(np.repeat(np.array([0, 80], np.uint8), 1), (32, 16))
        # New centres lie a quarter off the old: weights 3/4 and 1/4; the edges have one neighbour.
        assert fitted(steps, "resize")[0, :5].tolist() == [0, 20, 60, 60, 20]


def test_reduction_averages_instead_of_skipping_pixels():
    checkers = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    decoded = decode_image(encode(checkers), CONFIG).pixels
    assert np.abs(decoded.astype(int) - 127.5).max() <= 1


@pytest.mark.parametrize("fit", ["crop", "pad", "resize"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 1), (1, 60_000), (60_000, 1), (63, 65)])
def test_any_shape_becomes_the_square_and_keeps_its_grey(shape, fit):
    square = fitted(np.full(shape, 9, np.uint8), fit)
    assert square.shape == (64, 64)
    assert set(np.unique(square)) <= {0, 9}
    assert 9 in square
    assert fit == "pad" or 0 not in square
