"""The right pixels of every kind of PNG and JPEG."""

import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.decode import decode_image
from tests.data.images.image_bytes import (
    chunk,
    chunks_of,
    encode,
    header,
    interlaced,
    noise,
    png,
    shades,
)

CONFIG = ImagesConfig(size=64)
GREY = noise()
GOOD = encode(GREY)


def pixels_of(data, config=CONFIG):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return decode_image(data, config).pixels


def test_a_square_of_the_right_size_passes_unchanged_by_every_fit():
    for fit in ("crop", "pad", "resize"):
        decoded = decode_image(GOOD, ImagesConfig(size=64, fit=fit))
        np.testing.assert_array_equal(decoded.pixels, GREY)
        assert decoded.pixels.dtype == np.uint8
        assert (decoded.width, decoded.height) == (64, 64)


class TestColour:
    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
    def test_copies_of_grey_give_the_grey_values(self, mode):
        data = encode(Image.fromarray(GREY).convert(mode))
        np.testing.assert_array_equal(pixels_of(data), GREY)

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_alpha_does_not_matter(self, mode):
        image = Image.fromarray(GREY).convert(mode)
        image.putalpha(Image.fromarray(noise(seed=1)))
        np.testing.assert_array_equal(pixels_of(encode(image)), GREY)

    def test_colour_becomes_luminance(self):
        data = encode(Image.new("RGB", (64, 64), (255, 0, 0)))
        assert np.unique(pixels_of(data)).tolist() == [76]  # 0.299 * 255 = 76.2

    @pytest.mark.parametrize("transparency", [None, b"\x00\x40\x80\xff", 2])
    def test_palette_is_looked_up_and_its_transparency_dropped(self, transparency):
        image = Image.fromarray(GREY // 64).convert("P")
        image.putpalette([value for level in (10, 20, 30, 40) for value in [level] * 3])
        options = {} if transparency is None else {"transparency": transparency}
        np.testing.assert_array_equal(
            pixels_of(encode(image, **options)), np.array([10, 20, 30, 40])[GREY // 64]
        )

    def test_a_grey_value_marked_as_transparent_stays_what_it_is(self):
        np.testing.assert_array_equal(pixels_of(encode(GREY, transparency=7)), GREY)


class TestDepth:
    def test_sixteen_bits_that_are_all_used(self):
        deep = GREY.astype(np.uint16) << 8 | 0xFF
        np.testing.assert_array_equal(pixels_of(encode(deep)), GREY)

    def test_twelve_bits_in_sixteen_are_spread_from_the_least_to_the_greatest(self):
        deep = np.full((64, 64), 1000, np.uint16)
        deep[0, :3] = [0, 2048, 4095]  # 2048 / 4095 * 255 = 127.5, and 1000 gives 62.3
        assert pixels_of(encode(deep))[0, :4].tolist() == [0, 128, 255, 62]

    def test_a_blank_image_is_black(self):
        assert (pixels_of(encode(np.full((64, 64), 700, np.uint16))) == 0).all()

    def test_of_sixteen_bits_a_colour_the_upper_eight(self):
        deep = np.repeat((GREY.astype(np.uint16) << 8 | 0xFF)[..., None], 3, axis=2).astype(">u2")
        rows = b"".join(b"\0" + row.tobytes() for row in deep)
        data = png(header(64, 64, 16, 2), chunk(b"IDAT", zlib.compress(rows)))
        np.testing.assert_array_equal(pixels_of(data), GREY)

    def test_a_border_far_from_the_rest_leaves_it_its_contrast(self):
        deep = (shades() * 4000).astype(np.uint16)
        deep[:, :6] = 65_535
        grey = pixels_of(encode(deep))
        assert (grey[:, :6] == 255).all()
        assert len(np.unique(grey[:, 6:])) > 128

    def test_a_hot_pixel_leaves_the_rest_its_contrast(self):
        deep = (shades() * 4095).astype(np.uint16)
        plain = pixels_of(encode(deep)).astype(int)
        deep[20, 30] = 16_383  # of a detector of 14 bits, where the rest is within 12
        hot = pixels_of(encode(deep))
        assert hot[20, 30] == 255
        assert np.abs(np.delete(hot - plain, 20 * 64 + 30)).max() <= 1
        assert len(np.unique(hot)) > 240

    def test_one_bit_becomes_black_and_white(self):
        np.testing.assert_array_equal(pixels_of(encode(GREY > 127)), np.where(GREY > 127, 255, 0))

    def test_two_bits_are_spread_over_the_range(self):
        rows = b"\0" + bytes([0b00011011] * 16)  # 0 1 2 3
        data = png(header(64, 64, 2), chunk(b"IDAT", zlib.compress(rows * 64)))
        assert pixels_of(data)[0, :4].tolist() == [0, 85, 170, 255]


class TestLayout:
    @pytest.mark.parametrize("shape", [(64, 64), (67, 64), (64, 71), (65, 66)])
    def test_interlaced(self, shape):
        pixels = noise(*shape)
        np.testing.assert_array_equal(pixels_of(interlaced(pixels)), pixels_of(encode(pixels)))

    def test_of_an_animation_the_first_frame(self):
        frames = [Image.fromarray(noise(seed=seed)) for seed in (1, 2)]
        data = encode(Image.fromarray(GREY), save_all=True, append_images=frames)
        assert b"acTL" in [kind for kind, _ in chunks_of(data)]
        np.testing.assert_array_equal(pixels_of(data), GREY)

    def test_what_follows_the_end_is_ignored(self):
        np.testing.assert_array_equal(pixels_of(GOOD + b"<html>" * 1000), GREY)

    def test_pixels_in_many_chunks(self):
        kinds = dict(chunks_of(GOOD))
        stream = kinds[b"IDAT"]
        parts = [chunk(b"IDAT", stream[start : start + 9]) for start in range(0, len(stream), 9)]
        np.testing.assert_array_equal(pixels_of(png(header(64, 64), *parts)), GREY)

    def test_the_limit_is_the_configured_one_and_not_pillows(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        np.testing.assert_array_equal(pixels_of(GOOD), GREY)
        assert Image.MAX_IMAGE_PIXELS == 100


class TestOrientation:
    # EXIF 2.3: which side of the image the first row and the first column of the file are.
    TURNED = (
        (1, lambda pixels: pixels),
        (2, lambda pixels: pixels[:, ::-1]),
        (3, lambda pixels: pixels[::-1, ::-1]),
        (4, lambda pixels: pixels[::-1]),
        (5, lambda pixels: pixels.T),
        (6, lambda pixels: pixels.T[::-1]),
        (7, lambda pixels: pixels[::-1, ::-1].T),
        (8, lambda pixels: pixels.T[:, ::-1]),
    )

    @pytest.mark.parametrize(("orientation", "as_stored"), TURNED)
    @pytest.mark.parametrize("format", ["PNG", "JPEG"])
    def test_an_image_is_put_upright(self, format, orientation, as_stored):
        upright = noise(8, 6).repeat(8, axis=0).repeat(8, axis=1)  # blocks: exact in JPEG
        stored, exif = np.ascontiguousarray(as_stored(upright)), Image.Exif()
        exif[0x0112] = orientation
        options = {"quality": 100} if format == "JPEG" else {}
        data = encode(stored, format, exif=exif, **options)
        decoded = decode_image(data, ImagesConfig(size=64, fit="pad"))
        np.testing.assert_array_equal(decoded.pixels[:, 8:56], upright)
        assert (decoded.width, decoded.height) == (48, 64)

    def test_sixteen_bits_and_a_tag_behind_the_pixels(self):
        deep = GREY.astype(np.uint16) << 8 | 0xFF
        chunks = chunks_of(encode(deep))[:-1]
        exif = Image.Exif()
        exif[0x0112] = 3
        tag = (b"eXIf", exif.tobytes()[6:])
        data = png(*(chunk(*parts) for parts in (*chunks, tag)))
        np.testing.assert_array_equal(pixels_of(data), GREY[::-1, ::-1])

    @pytest.mark.parametrize(
        "content", [b"", b"II", b"MM\0*\0\0\0\xff", b"II*\0\x08\0\0\0\xff\xff"]
    )
    def test_damaged_tags_cost_nothing_but_themselves(self, content):
        chunks = [*chunks_of(GOOD)[:1], (b"eXIf", content), *chunks_of(GOOD)[1:-1]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            decoded = decode_image(png(*(chunk(*parts) for parts in chunks)), CONFIG)
        np.testing.assert_array_equal(decoded.pixels, GREY)


class TestJPEG:
    def test_a_jpeg_decodes_whatever_its_name(self):
        blocks = noise(8, 8).repeat(8, axis=0).repeat(8, axis=1)  # of one grey: exact in JPEG
        np.testing.assert_array_equal(pixels_of(encode(blocks, "JPEG", quality=100)), blocks)
        np.testing.assert_array_equal(
            pixels_of(encode(blocks, "JPEG", quality=100, progressive=True)), blocks
        )

    def test_colour_becomes_luminance(self):
        red = encode(Image.new("RGB", (64, 64), (255, 0, 0)), "JPEG", quality=100)
        assert np.abs(pixels_of(red).astype(int) - 76).max() <= 1

    def test_cmyk(self):
        white = encode(Image.new("CMYK", (64, 64), (0, 0, 0, 0)), "JPEG", quality=100)
        assert (pixels_of(white) == 255).all()


def test_real_rgba_images_equal_their_first_channel(real_sample):
    coloured = 0
    for path in sorted((real_sample / "images").glob("*.png")):
        data = path.read_bytes()
        if data[25] != 6:  # IHDR's colour type: RGBA
            continue
        coloured += 1
        red = np.asarray(Image.open(path))[..., 0]
        np.testing.assert_array_equal(pixels_of(data, ImagesConfig()), red)
    assert coloured == 3
