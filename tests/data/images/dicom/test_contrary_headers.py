"""Headers that contradict their pixels or are odd: the image's own grey, or a reason."""

import struct

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)

from cxrmodel.data.images.dicom.display import decode_dicom
from cxrmodel.data.images.dicom.header import Frame, are_runs_too_long, read_frame
from cxrmodel.errors import ImageError
from tests.data.images.image_bytes import dicom, encode, lut, noise, shades

DEEP = (shades() * 4000 + 50).astype(np.uint16)  # 12 bits
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}
MONOCHROME1 = {"PhotometricInterpretation": "MONOCHROME1"}


def spread(values, black, white):
    return np.rint(((values - black) / (white - black)).clip(0, 1) * 255)


PLAIN = spread(DEEP, 50, 4050)


def shown(pixels, **options):
    return decode_dicom(dicom(pixels, **options), 64)


def refused(pixels, **options):
    with pytest.raises(ImageError) as caught:
        shown(pixels, **options)
    return str(caught.value)


def jpeg2000(pixels):
    """Return a lossless codestream of 8 or 16 bits, like the pixels' type."""
    return encode(pixels, "JPEG2000", no_jp2=True)


def as_signed(codestream):
    """Return a codestream whose values are less by half of their range, and signed."""
    changed = bytearray(codestream)
    changed[42] |= 0x80  # the sign bit of Ssiz
    return bytes(changed)


def image_of(frame, like, syntax=JPEG2000Lossless, **options):
    return {"pixels": like, "data": encapsulate([frame]), "syntax": syntax, **options}


class TestPadding:
    BORDER = np.s_[:, :6]

    def padded(self, value, dtype=np.uint16):
        pixels = DEEP.astype(dtype)
        pixels[self.BORDER] = value
        return pixels

    @property
    def expected(self):
        inner = DEEP[:, 6:].astype(float)
        grey = spread(DEEP.astype(float), inner.min(), inner.max())
        grey[self.BORDER] = 0
        return grey

    @pytest.mark.parametrize("value", [65_535, 60_000, 4095, 0])
    def test_takes_no_part_in_the_range_and_is_black(self, value):
        grey = shown(self.padded(value), PixelPaddingValue=value)
        np.testing.assert_array_equal(grey, self.expected)

    def test_signed(self):
        grey = shown(self.padded(-2000, np.int16), PixelPaddingValue=-2000)
        np.testing.assert_array_equal(grey, self.expected)

    def test_signed_and_written_without_its_sign(self):
        tag = [((0x0028, 0x0120), "US", 65_536 - 2000)]
        grey = shown(self.padded(-2000, np.int16), elements=tag)
        np.testing.assert_array_equal(grey, self.expected)

    def test_beyond_the_stored_bits(self):
        grey = shown(self.padded(63_536), bits=12, PixelPaddingValue=63_536)
        np.testing.assert_array_equal(grey, self.expected)

    def test_a_range_either_way_round(self):
        pixels = self.padded(5000)
        pixels[:, :3] = 6000
        for ends in ((5000, 6000), (6000, 5000)):
            tags = dict(zip(("PixelPaddingValue", "PixelPaddingRangeLimit"), ends, strict=True))
            np.testing.assert_array_equal(shown(pixels, **tags), self.expected)

    def test_stays_black_where_the_image_is_inverted(self):
        inverted = 255 - self.expected
        inverted[self.BORDER] = 0
        grey = shown(self.padded(65_535), PixelPaddingValue=65_535, **MONOCHROME1)
        np.testing.assert_array_equal(grey, inverted)

    @pytest.mark.parametrize("value", [65_535, -3000])
    def test_a_value_that_no_pixel_can_have_is_no_padding(self, value):
        white = np.full((64, 64), 255, np.uint8)
        white[:32] = 100
        tag = [((0x0028, 0x0120), "SS" if value < 0 else "US", value)]
        np.testing.assert_array_equal(shown(white, elements=tag), white)

    def test_no_image_is_all_padding(self):
        tags = {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 65_535}
        np.testing.assert_array_equal(shown(DEEP, **tags), PLAIN)

    def test_does_not_count_as_contrast(self):
        flat = np.full((64, 64), 120, np.uint8)
        flat[self.BORDER] = 0
        assert "low_contrast" in refused(flat, PixelPaddingValue=0)


class TestBits:
    def test_left_aligned_as_high_bit_says(self):
        np.testing.assert_array_equal(shown(DEEP << 4, bits=12, HighBit=15), PLAIN)
        grey = shown(DEEP << 4, bits=12, HighBit=15, **WINDOW)
        np.testing.assert_array_equal(grey, spread(DEEP, 0, 4095))

    def test_left_aligned_and_signed(self):
        signed = DEEP.astype(np.int16) - 2048
        grey = shown(signed << 4, bits=12, HighBit=15)
        np.testing.assert_array_equal(grey, PLAIN)

    @pytest.mark.parametrize("high", [15, 16, 300, 7, 0, None])
    def test_a_high_bit_that_the_pixels_do_not_bear_out_is_not_followed(self, high):
        np.testing.assert_array_equal(shown(DEEP, bits=12, HighBit=high), PLAIN)

    def test_two_places_for_the_sign(self):
        assert refused(DEEP.astype(np.int16), HighBit=11) == (
            "damaged_image: its HighBit is 11, and its BitsStored 16"
        )

    @pytest.mark.parametrize("factor", [2, 4, 8, 16])
    def test_more_bits_than_are_stored(self, factor):
        assert refused(DEEP * factor, bits=12) == (
            "damaged_image: its pixels have more bits than the 12 that are said to be stored"
        )

    def test_more_colour_than_is_stored(self):
        colours = np.repeat(DEEP[..., None], 3, axis=2)
        assert "more bits than the 8" in refused(colours, bits=8)

    def test_a_drawing_in_the_bits_above_is_dropped(self):
        drawn = DEEP.copy()
        drawn[10:20, 10:20] |= 0x8000
        drawn[40, 5:60] |= 0x1000
        np.testing.assert_array_equal(shown(drawn, bits=12), PLAIN)

    def test_a_sign_that_is_repeated_above_is_no_more_bits(self):
        signed = DEEP.astype(np.int16) - 2048
        np.testing.assert_array_equal(shown(signed, bits=12), PLAIN)
        np.testing.assert_array_equal(shown(signed & 0x0FFF, bits=12), PLAIN)


class TestFrame:
    def test_more_bits_than_the_header_says(self):
        grey = shown(**image_of(jpeg2000(DEEP * 16), DEEP, bits=12))
        np.testing.assert_array_equal(grey, PLAIN)

    def test_fewer_bits_than_the_header_says(self):
        grey = (shades() * 200).astype(np.uint8)
        image = image_of(jpeg2000(grey), DEEP)
        np.testing.assert_array_equal(shown(**image), grey)
        image = image_of(encode(grey, "JPEG", quality=100), DEEP, JPEGBaseline8Bit, bits=12)
        assert np.abs(shown(**image).astype(int) - grey).max() <= 2

    def test_sixteen_bits_where_eight_are_allocated(self):
        image = image_of(jpeg2000(DEEP), DEEP, BitsAllocated=8, BitsStored=8)
        np.testing.assert_array_equal(shown(**image), PLAIN)

    def test_signed(self):
        signed = DEEP.astype(np.int32) - 2000
        frame = as_signed(jpeg2000((signed + 2**15).astype(np.uint16)))
        for pixel_representation in (0, 1):
            image = image_of(frame, DEEP, PixelRepresentation=pixel_representation)
            np.testing.assert_array_equal(shown(**image), PLAIN)

    def test_unsigned_and_said_to_be_signed(self):
        image = image_of(jpeg2000(DEEP * 16), DEEP, PixelRepresentation=1)
        np.testing.assert_array_equal(shown(**image), PLAIN)

    def test_signed_values_whose_sign_the_encoder_lost(self):
        signed = DEEP.astype(np.int16) - 2000
        image = image_of(jpeg2000(signed.view(np.uint16)), DEEP, PixelRepresentation=1)
        np.testing.assert_array_equal(shown(**image), PLAIN)

    def test_another_size_or_number_of_samples(self):
        assert refused(**image_of(jpeg2000(DEEP[:40]), DEEP)) == (
            "damaged_image: its compressed image is of 64 x 40 pixels, and its header says 64 x 64"
        )
        colour = np.repeat((DEEP >> 4).astype(np.uint8)[..., None], 3, axis=2)
        for frame, syntax in (
            (jpeg2000(colour), JPEG2000Lossless),
            (encode(colour, "JPEG"), JPEGBaseline8Bit),
        ):
            assert refused(**image_of(frame, DEEP, syntax)) == (
                "damaged_image: its compressed image has 3 samples per pixel, and its header says 1"
            )

    def test_no_header(self):
        assert refused(**image_of(b"\xff\xd8\xff\xd9", DEEP)) == (
            "damaged_image: its compressed image has no header that can be read"
        )

    def test_two_frames_of_one(self):
        frame = jpeg2000(DEEP)
        image = image_of(frame, DEEP) | {"data": encapsulate([frame, frame])}
        assert refused(**image) == "unsupported_image: 2 frames, and a chest X-ray has one"

    def test_the_end_of_the_fragments_may_be_missing_and_the_frame_may_not(self):
        pixels = noise()
        image = dicom(**image_of(jpeg2000(pixels), pixels))
        assert np.array_equal(decode_dicom(image[:-8], 64), pixels)
        with pytest.raises(ImageError, match="damaged_image: its "):
            decode_dicom(image[:-1000], 64)

    @pytest.mark.parametrize("offset", [4, 8, 999_999])
    def test_one_frame_is_found_wherever_its_table_says_it_begins(self, offset):
        pixels = noise()
        fragments = encapsulate([jpeg2000(pixels)], fragments_per_frame=3, has_bot=False)
        table = struct.pack("<HHLL", 0xFFFE, 0xE000, 4, offset)
        options = {"data": table + fragments[8:], "syntax": JPEG2000Lossless}
        assert np.array_equal(shown(pixels, **options), pixels)

    @pytest.mark.parametrize("marker", [0xC0, 0xC1, 0xC3, 0xF7])
    def test_a_jpeg_header_is_found_behind_other_segments(self, marker):
        comment = b"\xff\xfe\x00\x06\xff\xc0ab\xff"
        size = struct.pack(">BBHBHHB", 0xFF, marker, 17, 12, 30, 40, 1)
        syntax = JPEGLSLossless if marker == 0xF7 else JPEGExtended12Bit
        frame = read_frame(b"\xff\xd8" + comment + size, syntax)
        assert frame == Frame(40, 30, 1, 12, None)

    @pytest.mark.parametrize("length", range(0, 41, 4))
    @pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGBaseline8Bit])
    def test_a_header_cut_short_is_none(self, length, syntax):
        whole = jpeg2000(DEEP) if syntax == JPEG2000Lossless else encode(noise(), "JPEG")
        assert read_frame(whole[:length], syntax) is None

    def test_runs_of_eight_bits_where_sixteen_are_said(self):
        frame = np.array([1, 64, *[0] * 14], "<u4").tobytes() + b"\x81\x07" * 32
        assert not are_runs_too_long(frame, 64 * 64)
        assert refused(**image_of(frame, DEEP, RLELossless)).startswith("damaged_image: its pixels")


class TestLayout:
    @pytest.mark.parametrize("kind", [" MONOCHROME1", "monochrome1", "Monochrome1 "])
    def test_blanks_and_small_letters_do_not_change_the_kind(self, kind):
        pixels = noise()
        inverted = shown(pixels, elements=[((0x0028, 0x0004), "CS", kind)])
        assert np.array_equal(inverted, 255 - pixels)

    @pytest.mark.parametrize("order", [{"PlanarConfiguration": None}, {}])
    def test_colours_whose_order_is_not_said_lie_beside_each_other(self, order):
        grey = noise()
        empty = [] if order else [((0x0028, 0x0006), "US", None)]
        assert np.array_equal(shown(np.dstack([grey] * 3), elements=empty, **order), grey)

    @pytest.mark.parametrize("length", [300, 360, 400])
    def test_a_header_cut_short_is_damaged_and_no_file_without_an_image(self, length):
        with pytest.raises(ImageError, match="damaged_image: it ends before it says how many rows"):
            decode_dicom(dicom(DEEP)[:length], 64)

    @pytest.mark.parametrize(("kind", "samples"), [("MONOCHROME2", 3), ("RGB", 1)])
    def test_another_number_of_samples_than_the_kind_has(self, kind, samples):
        pixels = np.zeros((64, 64, 3) if samples == 3 else (64, 64), np.uint8)
        right = {1: 3, 3: 1}[samples]
        assert refused(pixels, PhotometricInterpretation=kind) == (
            f"damaged_image: {samples} samples per pixel, and {kind} has {right}"
        )

    @pytest.mark.parametrize(
        "wrong",
        [{"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, {"Rows": 50}, {"Columns": 63}],
    )
    def test_more_pixels_than_the_header_has_room_for(self, wrong):
        assert "its pixels take 8,192 bytes, and as its header" in refused(DEEP, **wrong)

    @pytest.mark.parametrize("zeros", [1, 2, 100])
    def test_zeros_behind_the_pixels_do_not_matter(self, zeros):
        grey = shown(DEEP, data=DEEP.tobytes() + bytes(zeros))
        np.testing.assert_array_equal(grey, PLAIN)

    @pytest.mark.parametrize("bits", [12, 32, 64, 0])
    def test_samples_of_other_lengths(self, bits):
        assert refused(DEEP, BitsAllocated=bits) == f"unsupported_image: {bits} bits per sample"

    def test_a_sign_of_two(self):
        assert "its PixelRepresentation is 2" in refused(DEEP, PixelRepresentation=2)

    @pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
    def test_floating_point(self, keyword):
        pixels = {keyword: DEEP.astype(float).tobytes(), "PixelData": None, "BitsAllocated": 32}
        assert refused(DEEP, **pixels) == "unsupported_image: its pixels are floating-point numbers"


class TestWindow:
    @pytest.mark.parametrize(
        ("centre", "width"),
        [
            ("2000", "1"),
            ("2000", "0"),
            ("2000", "-5"),
            ("2000", "9"),
            ("60000", "200"),
            ("4049", "60"),
            ("nan", "nan"),
            ("2000", "inf"),
            ("wide", "open"),
            ("2000", ""),
        ],
    )
    @pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
    def test_one_that_shows_nothing_is_not_used(self, centre, width, function):
        elements = [((0x0028, 0x1050), "LO", centre), ((0x0028, 0x1051), "LO", width)]
        grey = shown(DEEP, bits=12, elements=elements, VOILUTFunction=function)
        np.testing.assert_array_equal(grey, PLAIN)

    def test_the_next_is_used(self):
        grey = shown(DEEP, bits=12, WindowCenter=["0", "2048"], WindowWidth=["0", "4096"])
        np.testing.assert_array_equal(grey, spread(DEEP, 0, 4095))

    def test_a_decimal_comma_is_a_point(self):
        elements = [((0x0028, 0x1050), "LO", "2047,5"), ((0x0028, 0x1051), "LO", "2000,5")]
        grey = shown(DEEP, bits=12, elements=elements)
        np.testing.assert_array_equal(grey, spread(DEEP, 2047 - 999.75, 2047 + 999.75))

    def test_an_unknown_function(self):
        grey = shown(DEEP, bits=12, **WINDOW, VOILUTFunction="CUBIC")
        np.testing.assert_array_equal(grey, PLAIN)

    def test_a_narrow_range_of_values_is_windowed_as_it_says(self):
        few = DEEP // 400
        grey = shown(few, bits=12, WindowCenter=5, WindowWidth=11)  # from 0 to 10
        np.testing.assert_array_equal(grey, spread(few.astype(float), -0.5, 9.5))

    def test_empty_rescale_tags_are_none(self):
        grey = shown(DEEP, bits=12, **WINDOW, RescaleSlope="", RescaleIntercept="")
        np.testing.assert_array_equal(grey, spread(DEEP, 0, 4095))

    def test_an_intercept_alone_moves_the_values(self):
        grey = shown(DEEP, bits=12, RescaleIntercept=-1000, WindowCenter=1048, WindowWidth=4096)
        np.testing.assert_array_equal(grey, spread(DEEP, 0, 4095))


def blank_lut():
    item = Dataset()
    item.add_new("LUTDescriptor", "SS", None)
    item.LUTExplanation = "normal"
    item.add_new("LUTData", "OW", None)
    return item


class TestLUT:
    @pytest.mark.parametrize(
        "item",
        [blank_lut(), lut(0, 8, [0] * 4096), lut(0, 5, range(4096)), lut(0, 16, range(4096))],
        ids=["blank", "black", "of five bits", "dark"],
    )
    def test_one_that_shows_nothing_gives_way_to_the_window(self, item):
        grey = shown(DEEP, VOILUTSequence=[item], bits=12, **WINDOW)
        np.testing.assert_array_equal(grey, spread(DEEP, 0, 4095))

    def test_one_cut_short(self):
        item = lut(0, 8, range(100))
        item.LUTDescriptor = [4096, 0, 8]
        grey = shown(DEEP, VOILUTSequence=[item], bits=12, **WINDOW)
        np.testing.assert_array_equal(grey, spread(DEEP, 0, 4095))

    def test_a_blank_modality_lut_is_none(self):
        grey = shown(DEEP, ModalityLUTSequence=[blank_lut()], bits=12, **WINDOW)
        np.testing.assert_array_equal(grey, spread(DEEP, 0, 4095))

    def test_a_modality_lut_cut_short(self):
        item = lut(0, 16, range(100))
        item.LUTDescriptor = [4096, 0, 99]
        assert refused(DEEP, ModalityLUTSequence=[item], bits=12, **WINDOW) == (
            "damaged_image: its ModalityLUTSequence cannot be applied"
        )


class TestShape:
    def test_inverse_is_inverted_and_with_monochrome1_once(self):
        for tags in ({}, MONOCHROME1):
            grey = shown(DEEP, bits=12, PresentationLUTShape="INVERSE", **tags)
            np.testing.assert_array_equal(grey, 255 - PLAIN)
        np.testing.assert_array_equal(shown(DEEP, bits=12, PresentationLUTShape="IDENTITY"), PLAIN)


def test_a_border_that_no_tag_names_leaves_the_image_its_contrast():
    framed = DEEP.copy()
    framed[:, :6] = framed[:, -6:] = 65_535
    grey = shown(framed)
    assert (grey[:, :6] == 255).all()
    inner = grey[:, 6:-6]
    assert len(np.unique(inner)) > 128
    assert np.corrcoef(inner.ravel(), DEEP[:, 6:-6].ravel())[0, 1] > 0.999


def test_a_damaged_frame_is_told_in_the_ledger_alone(capfd):
    image = image_of(jpeg2000(DEEP)[:120], DEEP)
    assert refused(**image) == "damaged_image: its pixels cannot be decoded as its header says"
    assert capfd.readouterr().err == ""
