"""Each test file that pydicom ships: an image, or the reason why not."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.decode import decode_image
from cxrmodel.data.images.dicom.display import decode_dicom
from cxrmodel.errors import ImageError

# Silenced where it matters, in a process that pytest's own filters do not rule.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"

IMAGES = {
    "693_J2KI.dcm": (512, 512),
    "CT_small.dcm": (128, 128),
    "ExplVR_BigEnd.dcm": (60, 80),
    "J2K_pixelrep_mismatch.dcm": (512, 512),
    "JPEG2000.dcm": (1024, 256),
    "MR_small.dcm": (64, 64),
    "MR_small_RLE.dcm": (64, 64),
    "MR_small_bigendian.dcm": (64, 64),
    "MR_small_expb.dcm": (64, 64),
    "MR_small_implicit.dcm": (64, 64),
    "MR_small_jp2klossless.dcm": (64, 64),
    "MR_small_padded.dcm": (64, 64),
    "SC_jpeg_no_color_transform.dcm": (256, 256),
    "SC_jpeg_no_color_transform_2.dcm": (256, 256),
    "SC_rgb_dcmtk_+eb+cr.dcm": (100, 100),
    "SC_rgb_dcmtk_+eb+cy+n1.dcm": (100, 100),
    "SC_rgb_dcmtk_+eb+cy+n2.dcm": (100, 100),
    "SC_rgb_dcmtk_+eb+cy+np.dcm": (100, 100),
    "SC_rgb_dcmtk_+eb+cy+s2.dcm": (100, 100),
    "SC_rgb_dcmtk_+eb+cy+s4.dcm": (100, 100),
    "SC_rgb_gdcm_KY.dcm": (100, 100),
    "SC_rgb_jpeg.dcm": (256, 256),
    "SC_rgb_jpeg_app14_dcmd.dcm": (256, 256),
    "SC_rgb_jpeg_dcmd.dcm": (256, 256),
    "SC_rgb_jpeg_dcmtk.dcm": (100, 100),
    "SC_rgb_jpeg_lossy_gdcm.dcm": (100, 100),
    "SC_rgb_rle.dcm": (100, 100),
    "SC_rgb_rle_16bit.dcm": (100, 100),
    "SC_rgb_small_odd.dcm": (3, 3),
    "SC_rgb_small_odd_big_endian.dcm": (3, 3),
    "SC_rgb_small_odd_jpeg.dcm": (3, 3),
    "SC_ybr_full_422_uncompressed.dcm": (100, 100),
    "examples_jpeg2k.dcm": (480, 640),
    "examples_overlay.dcm": (300, 484),
    "examples_palette.dcm": (350, 800),
    "examples_rgb_color.dcm": (240, 320),
    "liver_1frame.dcm": (512, 512),
    "liver_expb_1frame.dcm": (512, 512),
}
BY_IMAGECODECS = {
    "JPEG-lossy.dcm": ((1024, 256), JPEGExtended12Bit),
    "JPGExtended.dcm": ((1024, 256), JPEGExtended12Bit),
    "JPEGLSNearLossless_08.dcm": ((45, 10), JPEGLSNearLossless),
    "JPEGLSNearLossless_16.dcm": ((50, 10), JPEGLSNearLossless),
    "MR_small_jpeg_ls_lossless.dcm": ((64, 64), JPEGLSLossless),
    "SC_rgb_jls_lossy_line.dcm": ((100, 100), JPEGLSNearLossless),
    "SC_rgb_jls_lossy_sample.dcm": ((100, 100), JPEGLSNearLossless),
    "SC_rgb_jpeg_gdcm.dcm": ((100, 100), JPEGLosslessSV1),
}
NO_DECODER = "unsupported_image: no decoder for the transfer syntax "
CUT = "damaged_image: it ends before it says how many rows and columns it has"
NO_IMAGE = "unsupported_image: it holds no image"
NO_DICOM = "unsupported_image: not a PNG, JPEG or DICOM file: it begins with the bytes "
REFUSED = {
    "ExplVR_BigEndNoMeta.dcm": NO_DICOM,
    "ExplVR_LitEndNoMeta.dcm": NO_DICOM,
    "no_meta.dcm": NO_DICOM,
    "rtstruct.dcm": NO_DICOM,
    "GDCMJ2K_TextGBR.dcm": "damaged_image: its pixels cannot be decoded as its header says",
    "JPEG2000-embedded-sequence-delimiter.dcm": "damaged_image: its compressed image is of ",
    "MR_truncated.dcm": "damaged_image: its pixels take 8,130 bytes, and should take 8,192",
    "badVR.dcm": "damaged_image: its NumberOfFrames is no whole number",
    "meta_missing_tsyntax.dcm": "damaged_image: it names no transfer syntax",
    "image_dfl.dcm": f"{NO_DECODER}Deflated Explicit VR Little Endian",
    "SC_rgb_rle_16bit_2frame.dcm": "unsupported_image: 2 frames, and a chest X-ray has one",
    "SC_rgb_rle_2frame.dcm": "unsupported_image: 2 frames, and a chest X-ray has one",
    "SC_rgb_rle_32bit_2frame.dcm": "unsupported_image: 2 frames, and a chest X-ray has one",
    "examples_ybr_color.dcm": "unsupported_image: 30 frames, and a chest X-ray has one",
    "rtdose.dcm": "unsupported_image: 15 frames, and a chest X-ray has one",
    "rtdose_expb.dcm": "unsupported_image: 15 frames, and a chest X-ray has one",
    "rtdose_rle.dcm": "unsupported_image: 15 frames, and a chest X-ray has one",
    "SC_rgb_rle_32bit.dcm": "unsupported_image: 32 bits per sample",
    "rtdose_1frame.dcm": "unsupported_image: 32 bits per sample",
    "rtdose_expb_1frame.dcm": "unsupported_image: 32 bits per sample",
    "rtdose_rle_1frame.dcm": "unsupported_image: 32 bits per sample",
    "UN_sequence.dcm": NO_IMAGE,
    "empty_charset_LEI.dcm": CUT,
    "nested_priv_SQ.dcm": NO_IMAGE,
    "no_meta_group_length.dcm": CUT,
    "priv_SQ.dcm": NO_IMAGE,
    "reportsi.dcm": NO_IMAGE,
    "reportsi_with_empty_number_tags.dcm": NO_IMAGE,
    "rtplan.dcm": NO_IMAGE,
    "rtplan_truncated.dcm": NO_IMAGE,
    "test-SR.dcm": NO_IMAGE,
    "waveform_ecg.dcm": NO_IMAGE,
}


def image_of(name):
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"this pydicom does not bring {name}")
    return path.read_bytes()


def grey_of(name):
    return decode_dicom(image_of(name), 64)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_decodes(name):
    grey = grey_of(name)
    assert (grey.shape, grey.dtype) == (IMAGES[name], np.uint8)
    assert grey.min() < grey.max()


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_has_a_reason(name):
    with pytest.raises(ImageError) as caught:
        decode_image(image_of(name), ImagesConfig(size=64))
    assert str(caught.value).startswith(REFUSED[name])


@pytest.mark.parametrize("name", BY_IMAGECODECS)
def test_a_compression_that_imagecodecs_reads(name):
    pytest.importorskip("imagecodecs", reason="needs the extra dicom")
    grey = grey_of(name)
    assert grey.shape == BY_IMAGECODECS[name][0]
    assert grey.min() < grey.max()


@pytest.mark.parametrize("name", BY_IMAGECODECS)
def test_without_imagecodecs_the_compression_is_named(name, monkeypatch):
    _, syntax = BY_IMAGECODECS[name]
    monkeypatch.delitem(get_decoder(syntax)._available, "imagecodecs", raising=False)
    with pytest.raises(ImageError) as caught:
        decode_image(image_of(name), ImagesConfig(size=64))
    assert str(caught.value).startswith(f"{NO_DECODER}{syntax.name}")


def test_jpeg_ls_is_the_same_image_too():
    pytest.importorskip("imagecodecs", reason="needs the extra dicom")
    np.testing.assert_array_equal(grey_of("MR_small_jpeg_ls_lossless.dcm"), grey_of("MR_small.dcm"))


@pytest.mark.parametrize("other", ["RLE", "bigendian", "expb", "implicit", "jp2klossless"])
def test_one_image_in_several_encodings_is_one_image(other):
    np.testing.assert_array_equal(grey_of(f"MR_small_{other}.dcm"), grey_of("MR_small.dcm"))


def test_a_slice_without_a_window_is_spread():
    stored = pydicom.dcmread(FOLDER / "CT_small.dcm").pixel_array.astype(float)
    expected = np.rint((stored - 128) / (2191 - 128) * 255)  # its least and greatest value
    np.testing.assert_array_equal(grey_of("CT_small.dcm"), expected)


def test_a_slice_with_a_window_is_windowed():
    stored = pydicom.dcmread(FOLDER / "MR_small.dcm").pixel_array.astype(float)
    expected = np.rint(((stored - 599.5) / 1599 + 0.5).clip(0, 1) * 255)  # centre 600, width 1600
    np.testing.assert_array_equal(grey_of("MR_small.dcm"), expected)
