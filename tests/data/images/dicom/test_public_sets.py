"""DICOM as VinDr-CXR and RSNA publish it."""

import io

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.decode import decode_image
from cxrmodel.errors import ImageError
from tests.data.images.image_bytes import dicom, encode, shades

CONFIG = ImagesConfig(size=64)
GREY = (shades() * 255).astype(np.uint8)
DEEP = (shades() * 16_000).astype(np.uint16)  # 14 bits of 16
WINDOW = {"WindowCenter": 8192, "WindowWidth": 16_384}


def pixels_of(data):
    return decode_image(data, CONFIG).pixels


class TestRSNA:
    """8-bit JPEG with loss, MONOCHROME2, without a window: NIH's images."""

    @pytest.mark.parametrize("quality", [75, 95])
    def test_the_grey_is_that_of_the_jpeg(self, quality):
        jpeg = encode(GREY, "JPEG", quality=quality)
        image = dicom(GREY, data=encapsulate([jpeg]), syntax=JPEGBaseline8Bit)
        np.testing.assert_array_equal(pixels_of(image), np.asarray(Image.open(io.BytesIO(jpeg))))
        np.testing.assert_array_equal(pixels_of(image), pixels_of(jpeg))

    def test_said_to_have_more_bits_than_the_jpeg_has(self):
        jpeg = encode(GREY, "JPEG", quality=95)
        frame = encapsulate([jpeg])
        image = dicom(GREY, data=frame, syntax=JPEGBaseline8Bit, BitsAllocated=16, BitsStored=12)
        np.testing.assert_array_equal(pixels_of(image), pixels_of(jpeg))


class TestVinDr:
    """12 to 16 bits, often MONOCHROME1, often with a window, in several compressions."""

    @pytest.mark.parametrize("tags", [{}, WINDOW])
    def test_monochrome1_is_the_negative_of_monochrome2(self, tags):
        plain = pixels_of(dicom(DEEP, bits=14, **tags))
        inverse = dicom(DEEP, bits=14, PhotometricInterpretation="MONOCHROME1", **tags)
        np.testing.assert_array_equal(pixels_of(inverse), 255 - plain)

    def test_monochrome1_in_a_compressed_frame(self):
        tags = {"bits": 14, "PhotometricInterpretation": "MONOCHROME1", **WINDOW}
        frame = encapsulate([encode(DEEP, "JPEG2000", no_jp2=True)])
        image = dicom(DEEP, data=frame, syntax=JPEG2000Lossless, **tags)
        np.testing.assert_array_equal(pixels_of(image), pixels_of(dicom(DEEP, **tags)))

    def test_no_transfer_syntax_is_told_and_nothing_is_guessed(self):
        uid = ExplicitVRLittleEndian.encode() + b"\0"
        image = dicom(DEEP, bits=14)
        assert image.count(uid) == 1
        with pytest.raises(ImageError, match="damaged_image: it names no transfer syntax"):
            decode_image(image.replace(uid, bytes(len(uid))), CONFIG)

    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless])
    def test_no_pixels_are_told(self, syntax):
        image = dicom(DEEP, bits=14, syntax=syntax, data=encapsulate([b"\0\0"]), PixelData=None)
        with pytest.raises(ImageError, match="damaged_image: it ends before its pixels"):
            decode_image(image, CONFIG)
