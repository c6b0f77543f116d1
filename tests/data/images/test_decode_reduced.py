"""Large JPEGs are decoded at a reduced scale, and the square hardly shows it."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images import decode
from cxrmodel.data.images.decode import decode_image
from tests.data.images.image_bytes import encode, noise, shades


def large(height, width, **options):
    """Return a JPEG with soft structures, noise of the detector, and a white letter."""
    soft = Image.fromarray((shades(height // 8, width // 8) * 220).astype(np.uint8))
    soft = np.asarray(soft.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    image = Image.fromarray((soft + noise(height, width) / 16).clip(0, 255).astype(np.uint8))
    ImageDraw.Draw(image).text((width // 3, height // 3), "L", fill=255, font_size=300)
    return encode(image.convert(options.pop("mode", "L")), "JPEG", quality=95, **options)


@pytest.fixture(scope="module")
def tall():
    """MIMIC's most frequent shape."""
    return large(3056, 2544)


def both(data, monkeypatch, **config):
    """Return what the pipeline decodes, and what it would if it decoded every pixel."""
    config = ImagesConfig(**config)
    reduced = decode_image(data, config)
    with monkeypatch.context() as patch:
        patch.setattr(decode, "JPEG_SCALES", ())
        return reduced, decode_image(data, config)


@pytest.mark.parametrize("fit", ["crop", "pad", "resize"])
@pytest.mark.parametrize("size", [64, 128])
def test_the_square_is_within_one_grey_level(tall, monkeypatch, size, fit):
    reduced, whole = both(tall, monkeypatch, size=size, fit=fit)
    difference = np.abs(reduced.pixels.astype(int) - whole.pixels)
    assert 0 < difference.max() <= 1  # 0 would mean that nothing was reduced
    assert (reduced.width, reduced.height) == (2544, 3056)
    assert abs(reduced.num_levels - whole.num_levels) <= 4


@pytest.mark.parametrize("options", [{"mode": "RGB"}, {"progressive": True}])
def test_in_colour_or_in_several_scans(monkeypatch, options):
    reduced, whole = both(large(1600, 1536, **options), monkeypatch, size=64)
    assert 0 < np.abs(reduced.pixels.astype(int) - whole.pixels).max() <= 1


@pytest.mark.parametrize("size", [256, 512, 1024])
def test_a_larger_square_takes_every_pixel(tall, monkeypatch, size):
    reduced, whole = both(tall, monkeypatch, size=size)
    np.testing.assert_array_equal(reduced.pixels, whole.pixels)


@pytest.mark.parametrize("shape", [(1537, 1537), (1538, 1536), (767, 768)])
def test_an_edge_between_pixels_or_too_few_of_them_leave_it_whole(monkeypatch, shape):
    reduced, whole = both(large(*shape), monkeypatch, size=64)
    np.testing.assert_array_equal(reduced.pixels, whole.pixels)


def test_nothing_from_outside_the_square_shines_in():
    wide = np.full((1536, 3072), 255, np.uint8)
    wide[:, 768:2304] = 0
    data = encode(wide, "JPEG", quality=100)
    assert decode_image(data, ImagesConfig(size=64)).pixels.max() == 0


def test_one_that_lies_on_its_side_is_put_upright(monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    reduced, whole = both(large(1536, 1600, exif=exif), monkeypatch, size=64)
    np.testing.assert_array_equal(reduced.pixels, whole.pixels)
    assert (reduced.width, reduced.height) == (1536, 1600)


def test_one_cut_short_is_damaged(tall):
    with pytest.raises(decode.ImageError, match="damaged_image"):
        decode_image(tall[: len(tall) // 2], ImagesConfig(size=64))
