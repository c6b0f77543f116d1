import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images import decode_image
from cxrmodel.errors import ImageError

CONFIG = ImagesConfig(size=64)


def encode(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def noise(height=64, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


GREY = noise()
GOOD = encode(Image.fromarray(GREY))


def pixels_of(data, config):
    return decode_image(data, config).pixels


def chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def test_a_square_of_the_right_size_passes_unchanged_by_every_fit():
    for fit in ("crop", "pad", "resize"):
        decoded = pixels_of(GOOD, ImagesConfig(size=64, fit=fit))
        np.testing.assert_array_equal(decoded, GREY)
        assert decoded.dtype == np.uint8


@pytest.mark.parametrize("fit", ["crop", "pad", "resize"])
def test_the_size_is_that_of_the_file_not_of_the_square(fit):
    image = decode_image(encode(Image.new("L", (192, 100))), ImagesConfig(size=64, fit=fit))
    assert (image.width, image.height, image.pixels.shape) == (192, 100, (64, 64))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colour_copies_of_grey_give_the_grey_values(mode):
    data = encode(Image.fromarray(GREY).convert(mode))
    np.testing.assert_array_equal(pixels_of(data, CONFIG), GREY)


def test_alpha_does_not_matter():
    image = Image.fromarray(GREY).convert("RGBA")
    image.putalpha(7)
    np.testing.assert_array_equal(pixels_of(encode(image), CONFIG), GREY)


def test_colour_becomes_luminance():
    data = encode(Image.new("RGB", (64, 64), (255, 0, 0)))
    assert np.unique(pixels_of(data, CONFIG)).tolist() == [76]  # 0.299 * 255 = 76.2


def test_palette_is_looked_up():
    image = Image.fromarray(GREY // 64).convert("P")
    image.putpalette([value for level in (10, 20, 30, 40) for value in [level] * 3])
    np.testing.assert_array_equal(
        pixels_of(encode(image), CONFIG), np.array([10, 20, 30, 40])[GREY // 64]
    )


def test_sixteen_bits_keep_the_upper_eight():
    deep = GREY.astype(np.uint16) << 8 | 0xFF
    np.testing.assert_array_equal(pixels_of(encode(Image.fromarray(deep)), CONFIG), GREY)


def test_one_bit_becomes_black_and_white():
    data = encode(Image.fromarray(GREY > 127))
    np.testing.assert_array_equal(pixels_of(data, CONFIG), np.where(GREY > 127, 255, 0))


class TestFit:
    def test_crop_takes_the_centre_square(self):
        wide = noise(64, 101)
        decoded = pixels_of(encode(Image.fromarray(wide)), CONFIG)
        np.testing.assert_array_equal(decoded, wide[:, 18:82])  # (101 - 64) // 2 = 18

    def test_pad_centres_between_black_borders(self):
        tall = np.full((64, 32), 200, np.uint8)
        decoded = pixels_of(encode(Image.fromarray(tall)), ImagesConfig(size=64, fit="pad"))
        assert (decoded[:, 16:48] == 200).all()
        assert decoded.sum() == 64 * 32 * 200

    def test_resize_stretches(self):
        wide = np.repeat(np.array([[0, 255]], np.uint8), 64, axis=1).repeat(32, axis=0)
        decoded = pixels_of(encode(Image.fromarray(wide)), ImagesConfig(size=64, fit="resize"))
        assert (decoded[:, :31] == 0).all()
        assert (decoded[:, 33:] == 255).all()

    def test_reduction_averages_instead_of_skipping_pixels(self):
        checkers = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
        decoded = pixels_of(encode(Image.fromarray(checkers)), CONFIG)
        assert np.abs(decoded.astype(int) - 127.5).max() <= 1

    def test_an_extreme_shape_stays_small(self):
        line = encode(Image.new("L", (60_000, 1), 9))
        for fit in ("crop", "pad", "resize"):
            assert pixels_of(line, ImagesConfig(size=64, fit=fit)).shape == (64, 64)


def refused(data, config=CONFIG):
    with pytest.raises(ImageError) as caught:
        pixels_of(data, config)
    return str(caught.value.reason), caught.value.detail


class TestRefusals:
    def test_truncated(self):
        assert refused(GOOD[: len(GOOD) // 2]) == ("damaged_image", "Truncated File Read")

    def test_damaged_checksum(self):
        damaged = bytearray(GOOD)
        damaged[len(GOOD) // 2] ^= 1
        reason, detail = refused(bytes(damaged))
        assert reason == "damaged_image"
        assert "bad header checksum in b'IDAT'" in detail

    def test_right_checksum_over_a_broken_stream(self):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0))
        data = GOOD[:8] + header + chunk(b"IDAT", b"\0" * 40) + chunk(b"IEND", b"")
        assert refused(data)[0] == "damaged_image"

    def test_empty_and_nearly_empty(self):
        assert refused(b"") == ("damaged_image", "the file is empty")
        assert refused(GOOD[:12]) == ("damaged_image", "the file ends after 12 bytes")

    def test_jpeg_in_disguise(self):
        reason, detail = refused(encode(Image.fromarray(GREY), "JPEG"))
        assert (reason, detail[:30]) == ("unsupported_image", "not a PNG: it begins with ff d")

    def test_too_large_is_told_from_the_header_alone(self):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0))
        assert refused(GOOD[:8] + header) == (
            "too_large",
            "50000 x 50000 pixels, more than images.max_megapixels = 64",
        )

    def test_the_limit_is_the_configured_one_and_not_pillows(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(pixels_of(GOOD, CONFIG), GREY)
        small = ImagesConfig(size=64, max_megapixels=0.004)
        assert refused(GOOD, small)[0] == "too_large"
        assert Image.MAX_IMAGE_PIXELS == 100


@given(st.data())
def test_any_damage_is_an_image_or_an_image_error(data):
    damaged = bytearray(GOOD)
    for position in data.draw(st.lists(st.integers(0, len(GOOD) - 1), min_size=1, max_size=4)):
        damaged[position] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(0, len(GOOD))) :]
    try:
        assert pixels_of(bytes(damaged), CONFIG).shape == (64, 64)
    except ImageError as error:
        assert error.reason


def test_real_rgba_films_equal_their_first_channel(real_sample):
    coloured = 0
    for path in sorted((real_sample / "images").glob("*.png")):
        data = path.read_bytes()
        if data[25] != 6:  # IHDR's colour type: RGBA
            continue
        coloured += 1
        red = np.asarray(Image.open(path))[..., 0]
        np.testing.assert_array_equal(pixels_of(data, ImagesConfig()), red)
    assert coloured == 3
