"""DICOM files that are damaged or made to hurt: a reason for the ledger, and no name in it."""

import subprocess
import sys
import textwrap
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.decode import decode_image
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import DataError, ImageError
from tests.data.images.image_bytes import decode_apart, dicom, encode, lut, noise

# Silenced where it matters, in a process that pytest's own filters do not rule.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

CONFIG = ImagesConfig(size=64)
GREY = noise()
DEEP = noise(16, 20).astype(np.uint16) * 16
DAMAGED, TOO_LARGE, UNSUPPORTED = Reason.DAMAGED_IMAGE, Reason.TOO_LARGE, Reason.UNSUPPORTED_IMAGE


def refused(data):
    with pytest.raises(ImageError) as caught:
        decode_image(data, CONFIG)
    return caught.value.reason, caught.value.detail


class TestDamage:
    def test_pixels_cut_short(self):
        assert refused(dicom(GREY)[:-100]) == (
            DAMAGED,
            "its pixels take 3,996 bytes, and should take 4,096",
        )

    def test_no_pixels(self):
        assert refused(dicom(GREY, data=b"")) == (DAMAGED, "it ends before its pixels")
        assert refused(dicom(GREY, PixelData=None)) == (DAMAGED, "it ends before its pixels")

    def test_no_image(self):
        assert refused(dicom(GREY, Rows=None)) == (UNSUPPORTED, "it holds no image")

    def test_no_rows(self):
        assert refused(dicom(GREY, Rows=0)) == (DAMAGED, "64 x 0 pixels")

    def test_a_missing_tag(self):
        data = dicom(GREY, BitsStored=None, PixelRepresentation=None)
        assert refused(data) == (DAMAGED, "it lacks BitsStored, PixelRepresentation")

    def test_only_the_prefix(self):
        data = bytes(128) + b"DICM"
        assert refused(data) == (DAMAGED, "it names no transfer syntax")

    @pytest.mark.parametrize("stored", [0, 9, 60_000])
    def test_more_bits_stored_than_there_are(self, stored):
        assert refused(dicom(GREY, BitsStored=stored))[0] == DAMAGED

    @pytest.mark.parametrize(
        ("slope", "intercept", "detail"),
        [
            ("0", "0", "its RescaleSlope is 0"),
            ("NaN", "0", "its RescaleSlope is not a number"),
            ("1", "inf", "its RescaleIntercept is not a number"),
            ("1E308", "1E308", "its rescale leaves no range of grey"),
        ],
    )
    def test_no_range_of_grey(self, slope, intercept, detail):
        window = {"WindowCenter": 9, "WindowWidth": 9}
        image = dicom(GREY, RescaleSlope=slope, RescaleIntercept=intercept, **window)
        assert refused(image) == (DAMAGED, detail)

    def test_what_a_damaged_tag_holds_is_not_told(self):
        image = dicom(GREY, RescaleSlope="1.2345", RescaleIntercept="0")
        reason, detail = refused(image.replace(b"1.2345", b"GEHEIM"))
        assert (reason, detail) == (DAMAGED, "its RescaleSlope is not a number")
        image = dicom(GREY, NumberOfFrames="1234567")
        reason, detail = refused(image.replace(b"1234567", b"GEHEIM7"))
        assert (reason, detail) == (DAMAGED, "its NumberOfFrames is no whole number")

    def test_deeply_nested_sequences(self):
        item = b"\x18\x00\x11\x01SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
        head, _, tail = dicom(GREY).partition(b"\x28\x00\x02\x00US")
        assert refused(head + item * 20_000 + b"\x28\x00\x02\x00US" + tail)[0] in tuple(Reason)


class TestKind:
    def test_several_frames(self):
        cine = dicom(GREY, NumberOfFrames=30)
        assert refused(cine) == (UNSUPPORTED, "30 frames, and a chest X-ray has one")

    def test_bits(self):
        data = dicom(GREY.astype(np.uint32))
        assert refused(data) == (UNSUPPORTED, "32 bits per sample")

    def test_colours(self):
        data = dicom(GREY, PhotometricInterpretation="HSV")
        assert refused(data) == (UNSUPPORTED, "photometric interpretation 'HSV'")

    def test_an_unknown_transfer_syntax(self):
        data = dicom(GREY).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0")
        assert refused(data) == (
            UNSUPPORTED,
            "no decoder for the transfer syntax 1.2.840.10008.9.9.9",
        )


def test_without_the_extra_the_error_names_it(monkeypatch):
    image = dicom(GREY)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r"need pydicom: install the extra `dicom`, as in pip ins"):
        decode_image(image, CONFIG)


def deflated_bomb():
    """Return a file whose tags are 256 MiB of zeros once inflated."""
    uid = DeflatedExplicitVRLittleEndian.encode()
    head, _, _ = dicom(GREY, syntax=DeflatedExplicitVRLittleEndian).partition(uid)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(1 << 20)
    return head + uid + b"".join(squeeze.compress(zeros) for _ in range(256)) + squeeze.flush()


def rle_bomb():
    """Return an image of 64 x 64 whose run lengths add up to 256 MiB."""
    frame = np.array([1, 64, *[0] * 14], "<u4").tobytes() + b"\x81\0" * (2 << 20)
    return dicom(GREY, data=encapsulate([frame]), syntax=RLELossless)


def jpeg_bomb():
    """Return an image of 64 x 64 whose JPEG claims to be of 9,000 x 9,000."""
    frame = encode(GREY, "JPEG").replace(b"\0\x40\0\x40", b"\x23\x28\x23\x28", 1)
    return dicom(GREY, data=encapsulate([frame]), syntax=JPEGBaseline8Bit)


def test_bombs_are_refused_in_bounded_memory(tmp_path):
    bombs = [dicom(GREY, Rows=65_535, Columns=65_535), deflated_bomb(), rle_bomb(), jpeg_bomb()]
    reasons, grown_mib = decode_apart(bombs, tmp_path)
    assert reasons == [TOO_LARGE, UNSUPPORTED, DAMAGED, DAMAGED]
    assert grown_mib < 48


TAGS = {"PatientID": "GEHEIM7", "StudyDate": "19610203", "WindowCenter": 9, "WindowWidth": 99}
SEEDS = (
    dicom(DEEP, **TAGS),
    dicom(DEEP, syntax=ImplicitVRLittleEndian, RescaleSlope=2, RescaleIntercept=-9),
    dicom(DEEP, VOILUTSequence=[lut(5, 8, range(200))], ModalityLUTSequence=[lut(0, 8, range(99))]),
    dicom(GREY, data=encapsulate([encode(GREY, "JPEG")]), syntax=JPEGBaseline8Bit),
)


@given(st.data())
@pytest.mark.filterwarnings("ignore")
def test_any_damage_is_an_image_or_a_reason_without_names(data):
    damaged = bytearray(data.draw(st.sampled_from(SEEDS)))
    header = st.integers(128, 900)
    for position in data.draw(st.lists(header, max_size=4)):
        damaged[position] = data.draw(st.integers(0, 255))
    start, length = data.draw(header), data.draw(st.integers(0, 12))
    del damaged[start : start + length]
    del damaged[data.draw(st.sampled_from([len(damaged), start])) :]
    try:
        assert decode_image(bytes(damaged), CONFIG).pixels.shape == (64, 64)
    except ImageError as error:
        assert error.reason in tuple(Reason)
        assert error.detail
        assert "GEHEIM" not in error.detail
        assert "19610203" not in error.detail


def test_nothing_of_a_damaged_file_is_logged_or_warned_of(tmp_path):
    # A length that is too great takes in the tags that follow, whatever they hold.
    image = dicom(DEEP, **TAGS)
    for position in range(132, 500):
        damaged = bytearray(image)
        damaged[position] = (damaged[position] + 40) % 256
        (tmp_path / f"{position}.dcm").write_bytes(damaged)
    script = """
        import logging, sys
        from pathlib import Path
        import pandas as pd
        from cxrmodel.config import ImagesConfig
        from cxrmodel.data.datasets.dicom_tags import read_headers
        from cxrmodel.data.images.decode import decode_image
        from cxrmodel.data.files.root import Root
        from cxrmodel.errors import ImageError

        logging.basicConfig(level=logging.DEBUG)
        paths = sorted(Path(sys.argv[1]).iterdir())
        files = pd.DataFrame({"uri": [path.name for path in paths], "bytes": 2000})
        read_headers(Root(sys.argv[1]), files)
        for path in paths:
            try:
                decode_image(path.read_bytes(), ImagesConfig())
            except ImageError as error:
                logging.warning(error.detail)
    """
    command = [sys.executable, "-W", "always", "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.count("WARNING:root:") > 50
    for secret in ("GEHEIM", "19610203", "pydicom"):
        assert secret not in done.stdout + done.stderr
