"""Compressions of a PACS export that need the extra `dicom`'s imagecodecs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from cxrmodel.data.images.dicom.display import decode_dicom
from cxrmodel.errors import ImageError
from tests.data.images.image_bytes import dicom, shades

imagecodecs = pytest.importorskip("imagecodecs", reason="needs the extra dicom")

DEEP = (shades() * 4000 + 50).astype(np.uint16)  # 12 bits
GREY = (shades() * 255).astype(np.uint8)
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def lossless(pixels, predictor):
    bits = 8 if pixels.itemsize == 1 else 16
    return imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=predictor, bitspersample=bits)


FRAMES = [
    (JPEGLosslessSV1, lambda pixels: lossless(pixels, 1)),
    (JPEGLossless, lambda pixels: lossless(pixels, 6)),
    (JPEGLossless, imagecodecs.ljpeg_encode),  # by another library than decodes it
    (JPEGLSLossless, imagecodecs.jpegls_encode),
]


def compressed(pixels, frame, syntax, **tags):
    return dicom(pixels, data=encapsulate([frame]), syntax=syntax, **tags)


@pytest.mark.parametrize(("syntax", "encode"), FRAMES)
@pytest.mark.parametrize("pixels", [GREY, DEEP])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_a_lossless_frame_is_the_same_image_as_its_plain_pixels(syntax, encode, pixels, kind):
    tags = {"PhotometricInterpretation": kind, **WINDOW}
    image = compressed(pixels, encode(pixels), syntax, **tags)
    np.testing.assert_array_equal(decode_dicom(image, 64), decode_dicom(dicom(pixels, **tags), 64))


def test_signed_pixels():
    signed = DEEP.astype(np.int16) - 2000
    image = compressed(signed, lossless(signed.view(np.uint16), 1), JPEGLosslessSV1)
    np.testing.assert_array_equal(decode_dicom(image, 64), decode_dicom(dicom(signed), 64))


def test_colour():
    colour = np.stack([GREY, GREY[::-1], GREY.T], axis=-1)
    frame = imagecodecs.jpegls_encode(colour)
    image = compressed(colour, frame, JPEGLSLossless)
    np.testing.assert_array_equal(decode_dicom(image, 64), decode_dicom(dicom(colour), 64))


def test_twelve_bits_with_loss():
    frame = imagecodecs.jpeg8_encode(DEEP, level=98, bitspersample=12)
    image = compressed(DEEP, frame, JPEGExtended12Bit, bits=12, **WINDOW)
    plain = decode_dicom(dicom(DEEP, **WINDOW), 64)
    assert np.abs(decode_dicom(image, 64).astype(int) - plain).max() <= 3


def test_jpeg_ls_with_loss():
    frame = imagecodecs.jpegls_encode(GREY, level=2)
    decoded = decode_dicom(compressed(GREY, frame, JPEGLSNearLossless), 64)
    assert 0 < np.abs(decoded.astype(int) - GREY).max() <= 2


@pytest.mark.parametrize(("syntax", "encode"), FRAMES)
def test_a_frame_without_its_end_is_damaged(syntax, encode):
    frame = encode(GREY)
    for length in (len(frame) // 2, len(frame) - 2):
        with pytest.raises(ImageError, match=r"damaged_image: its pixels cannot be decoded"):
            decode_dicom(compressed(GREY, frame[:length], syntax), 64)


@given(st.data())
@settings(max_examples=100, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_any_damage_is_an_image_or_an_image_error(data):
    syntax, encode = data.draw(st.sampled_from(FRAMES))
    frame = bytearray(encode(DEEP))
    for position in data.draw(st.lists(st.integers(0, 200), min_size=1, max_size=4)):
        frame[position] = data.draw(st.integers(0, 255))
    try:
        assert decode_dicom(compressed(DEEP, bytes(frame), syntax), 64).shape == (64, 64)
    except ImageError as error:
        assert error.detail
