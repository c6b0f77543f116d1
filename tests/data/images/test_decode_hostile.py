"""Files that are no image, or not all of one: an ImageError with a reason, never anything else."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.decode import decode_image
from cxrmodel.data.images.formats import check_bytes
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import ImageError
from tests.data.images.image_bytes import (
    PNG_SIGNATURE,
    chunk,
    chunks_of,
    decode_apart,
    encode,
    header,
    interlaced,
    noise,
    png,
)

CONFIG = ImagesConfig(size=64)
GREY = noise()
GOOD = encode(GREY)
JPEG = encode(GREY, "JPEG")
DAMAGED, TOO_LARGE, UNSUPPORTED = Reason.DAMAGED_IMAGE, Reason.TOO_LARGE, Reason.UNSUPPORTED_IMAGE


def refused(data, config=CONFIG):
    with pytest.raises(ImageError) as caught:
        decode_image(data, config)
    return caught.value.reason, caught.value.detail


def text_chunks():
    described = PngImagePlugin.PngInfo()
    described.add_text("Title", "image")
    described.add_text("Comment", "text " * 50, zip=True)
    palette = Image.fromarray(GREY // 64).convert("P")
    return encode(palette, pnginfo=described, dpi=(70, 70), transparency=b"\x00\xff")


class TestDamage:
    def test_empty_and_nearly_empty(self):
        assert refused(b"") == (DAMAGED, "the file is empty")
        assert refused(GOOD[:12])[0] == DAMAGED
        assert refused(PNG_SIGNATURE)[0] == DAMAGED
        assert refused(JPEG[:3])[0] == DAMAGED

    def test_truncated(self):
        assert refused(GOOD[: len(GOOD) // 2]) == (DAMAGED, "Truncated File Read")
        assert refused(JPEG[: len(JPEG) // 2])[0] == DAMAGED

    @pytest.mark.parametrize("position", range(len(chunks_of(text_chunks()))))
    def test_a_wrong_checksum_in_any_chunk(self, position):
        chunks = [chunk(*parts) for parts in chunks_of(text_chunks())]
        chunks[position] = chunks[position][:-1] + bytes([chunks[position][-1] ^ 1])
        reason, detail = refused(PNG_SIGNATURE + b"".join(chunks))
        assert reason == DAMAGED
        assert "checksum" in detail or detail == "its last chunk is missing or damaged"

    def test_right_checksum_over_a_broken_stream(self):
        assert refused(png(header(64, 64), chunk(b"IDAT", b"\0" * 40)))[0] == DAMAGED

    @pytest.mark.parametrize(
        ("depth", "colour", "bytes_a_row"),
        [(1, 0, 8), (8, 0, 64), (16, 0, 128), (8, 2, 192), (8, 4, 128), (8, 6, 256), (16, 6, 512)],
    )
    def test_a_stream_that_ends_before_the_last_row(self, depth, colour, bytes_a_row):
        for value in (0, 1):
            row = b"\0" + bytes([value]) * bytes_a_row
            whole = png(header(64, 64, depth, colour), chunk(b"IDAT", zlib.compress(row * 64)))
            short = png(header(64, 64, depth, colour), chunk(b"IDAT", zlib.compress(row * 63)))
            assert decode_image(whole, CONFIG).pixels.shape == (64, 64)
            assert refused(short) == (DAMAGED, "its pixels end before its last row")

    def test_an_interlaced_stream_that_ends_early(self):
        stream = zlib.decompress(dict(chunks_of(interlaced(GREY)))[b"IDAT"])
        for num_rows in (1, 5):  # of the last pass, of 64 px each
            cut = zlib.compress(stream[: -65 * num_rows])
            data = png(header(64, 64, interlace=1), chunk(b"IDAT", cut))
            assert refused(data) == (DAMAGED, "its pixels end before its last row")

    def test_no_pixels_and_no_end(self):
        assert refused(png(header(64, 64))) == (DAMAGED, "it has no pixels")
        assert refused(GOOD[:-12])[0] == DAMAGED
        assert refused(GOOD[:-1]) == (DAMAGED, "its last chunk is missing or damaged")

    @pytest.mark.parametrize("length", [0, 5, 12])
    def test_a_header_of_another_length(self, length):
        content = dict(chunks_of(GOOD))[b"IHDR"][:length]
        rest = b"".join(chunk(*parts) for parts in chunks_of(GOOD)[1:])
        assert refused(PNG_SIGNATURE + chunk(b"IHDR", content) + rest)[0] == DAMAGED

    @pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
    def test_text_that_inflates_without_end(self, kind):
        bomb = chunk(kind, b"name\0\0" + zlib.compress(b"\0" * (8 << 20)))
        pixels = [chunk(*parts) for parts in chunks_of(GOOD)[1:]]
        reason, detail = refused(PNG_SIGNATURE + header(64, 64) + bomb + b"".join(pixels))
        assert (reason, "too large" in detail) == (DAMAGED, True)


class TestFormat:
    def test_an_error_page(self):
        page = b"<!DOCTYPE html><html><body>503 Service Unavailable</body></html>"
        assert refused(page) == (
            UNSUPPORTED,
            'not a PNG, JPEG or DICOM file: it begins with "<!DOCTYPE ht"',
        )

    @pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "WEBP", "JPEG2000"])
    def test_other_formats(self, format):
        assert refused(encode(GREY, format))[0] == UNSUPPORTED


class TestSize:
    def test_too_large_is_told_from_the_header_alone(self):
        data = png(header(50_000, 50_000), chunk(b"IDAT"))
        assert refused(data) == (
            TOO_LARGE,
            "50000 x 50000 pixels, more than images.max_megapixels = 64",
        )

    def test_the_limit_is_the_setting(self):
        small = ImagesConfig(size=64, max_megapixels=0.004)
        assert refused(GOOD, small)[0] == TOO_LARGE
        assert refused(JPEG, small)[0] == TOO_LARGE

    def test_a_side_beyond_any_image(self):
        data = encode(Image.new("1", (65_536, 1)))
        assert refused(data) == (TOO_LARGE, "65536 x 1 pixels, more than 65535 on a side")

    def test_a_jpeg_that_goes_over_its_pixels_again_and_again(self):
        data = encode(GREY, "JPEG", progressive=True)
        scan = data.rindex(b"\xff\xda")
        repeated = data[:scan] + data[scan:-2] * 70 + data[-2:]
        reason, detail = refused(repeated)
        assert (reason, detail.partition(",")[2]) == (TOO_LARGE, " more than 64")

    def test_a_file_of_more_bytes_than_its_pixels_can_take(self):
        check_bytes(64_000_000 * 8, 64)
        with pytest.raises(ImageError) as caught:
            check_bytes(50 << 30, 64)
        assert caught.value.reason == TOO_LARGE
        assert "more than images.max_megapixels = 64 can take" in caught.value.detail


BOMB = chunk(b"IDAT", zlib.compress(b"\0" * 1_500_000))
SIDE = 65_535
BOMBS = {
    "plain": png(header(SIDE, SIDE), BOMB),
    "rgba": png(header(SIDE, SIDE, 16, 6), BOMB),
    "after a text": png(chunk(b"tEXt", b"a\0b"), header(SIDE, SIDE), BOMB),
    "second header": png(header(64, 64), header(SIDE, SIDE), BOMB),
    "jpeg": JPEG.replace(struct.pack(">HH", 64, 64), struct.pack(">HH", 65_500, 65_500), 1),
}


def test_bombs_are_refused_in_bounded_memory(tmp_path):
    assert max(map(len, BOMBS.values())) < 5000
    reasons, grown_mib = decode_apart(BOMBS.values(), tmp_path)
    assert reasons == [str(TOO_LARGE)] * len(BOMBS)
    assert grown_mib < 16


SEEDS = (
    GOOD,
    text_chunks(),
    JPEG,
    encode(GREY, save_all=True, append_images=[Image.fromarray(255 - GREY)]),
    encode(Image.fromarray(GREY).convert("RGB"), "JPEG", progressive=True),
)


def survives(data):
    try:
        assert decode_image(data, CONFIG).pixels.shape == (64, 64)
    except ImageError as error:
        assert error.reason in tuple(Reason)
        assert error.detail


@given(st.data())
def test_any_damage_is_an_image_or_an_image_error(data):
    damaged = bytearray(data.draw(st.sampled_from(SEEDS)))
    for position in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4)):
        damaged[position] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(0, len(damaged))) :]
    survives(bytes(damaged))


KINDS = [b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"iCCP", b"pHYs", b"zTXt", b"acTL", b"fcTL", b"fdAT"]


@given(st.data())
@pytest.mark.filterwarnings("ignore:Invalid APNG")
def test_any_chunks_with_right_checksums_are_an_image_or_an_image_error(data):
    chunks = chunks_of(data.draw(st.sampled_from([SEEDS[0], SEEDS[1], SEEDS[3]])))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(chunks) - 1))
        kind, content = chunks[position]
        damaged = bytearray(content[: data.draw(st.integers(0, len(content)))])
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        new = (data.draw(st.sampled_from([kind, *KINDS])), bytes(damaged))
        chunks.insert(position, new) if data.draw(st.booleans()) else chunks.pop(position)
    survives(PNG_SIGNATURE + b"".join(chunk(*parts) for parts in chunks))


@given(st.sampled_from(SEEDS[:2]), st.floats(0, 1, exclude_max=True))
def test_a_png_cut_anywhere_is_damaged(whole, part):
    assert refused(whole[: int(part * len(whole))])[0] in (DAMAGED, UNSUPPORTED)


@given(st.floats(0, 1, exclude_max=True))
def test_a_jpeg_cut_before_its_end_marker_is_damaged_or_whole(part):
    cut = JPEG[: int(part * len(JPEG))]
    try:
        decoded = decode_image(cut, CONFIG).pixels
    except ImageError:
        return
    np.testing.assert_array_equal(decoded, decode_image(JPEG, CONFIG).pixels)
