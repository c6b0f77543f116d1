"""Whatever comes in, each image ends with its own pixels or a reason, and no neighbour changes.

Files are drawn with headers that fit their pixels, are odd, or contradict them, and go through
the real path: listed, read, decoded by several threads, written to the memory map, read again.
"""

import tempfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.pixel_cache import PixelCache
from cxrmodel.data.images.pixels import decode_images, open_pixels
from cxrmodel.data.ledger import Reason
from tests.data.images.image_bytes import dicom, encode, lut, noise, shades

# Silenced where it matters, in a process that pytest's own filters do not rule.
pytestmark = pytest.mark.filterwarnings("ignore")

CONFIG = ImagesConfig(size=64)
TRUTH = shades()
NEIGHBOURS = [noise(seed=seed) for seed in range(3)]
MIN_CORRELATION = 0.85  # of a window that clips, with what was there before

maybe = st.sampled_from


CONTRARY = (
    *({"HighBit": high} for high in (0, 3, 7, 11, 15, 20)),
    *({"BitsStored": bits} for bits in (0, 1, 7, 8, 10, 12, 15, 16, 17)),
    *({"BitsAllocated": bits} for bits in (1, 8, 12, 16, 32)),
    *({"SamplesPerPixel": samples} for samples in (0, 3)),
    *({"Rows": rows} for rows in (0, 63, 65, 9000)),
    *({"Columns": columns} for columns in (0, 63, 65)),
    *({"NumberOfFrames": frames} for frames in (0, 1, 2)),
    *({"PhotometricInterpretation": kind} for kind in ("MONOCHROME1", "RGB", "PALETTE COLOR", "?")),
    *({"PresentationLUTShape": shape} for shape in ("INVERSE", "?")),
    *({"VOILUTFunction": function} for function in ("SIGMOID", "?")),
)


def tags_of(draw, low, high):
    """Draw display tags of an image whose values lie between two numbers, and contrary ones."""
    middle, width = (low + high) / 2, high - low
    windows = [
        {},
        {"WindowCenter": round(middle, 1), "WindowWidth": round(width, 1)},
        {"WindowCenter": round(middle, 1), "WindowWidth": round(width * 0.7 + 1, 1)},
        *({"WindowCenter": round(middle), "WindowWidth": odd} for odd in ("0", "1", "nan", "-3")),
        {"WindowCenter": round(high + 9 * width), "WindowWidth": 100},
        {"WindowCenter": ["0.5", f"{middle:.1f}"], "WindowWidth": ["1", f"{width:.1f}"]},
        {"VOILUTSequence": [lut(0, 8, [7] * 300)]},
        {"VOILUTSequence": [lut(0, 5, range(4096))]},
    ]
    tags = draw(maybe(windows))
    for contrary in draw(st.lists(maybe(CONTRARY), max_size=2)):
        tags = {**tags, **contrary}
    return tags


@st.composite
def dicom_files(draw):
    """Draw a DICOM file of the true image."""
    syntax = draw(maybe([ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, "jpeg"]))
    bits = draw(st.integers(6, 16)) if syntax != "jpeg" else 8
    is_signed = draw(st.booleans()) and syntax not in ("jpeg", JPEG2000Lossless)
    values = np.rint(TRUTH * (2**bits - 1)).astype(np.int32) - is_signed * 2 ** (bits - 1)
    kind = ("i" if is_signed else "u") + ("1" if bits <= 8 else "2")
    padding = draw(maybe([(), (0,), (65_535,)])) if not is_signed else ()  # there a middle grey
    elements = [((0x0028, 0x0120), "US", value) for value in padding]
    tags, pixels = tags_of(draw, int(values.min()), int(values.max())), values.astype(kind)
    if syntax == "jpeg":
        frame, syntax = encode(pixels, "JPEG", quality=95), JPEGBaseline8Bit
        data = encapsulate([frame])
        return dicom(pixels, data=data, syntax=syntax, elements=elements, **tags)
    if syntax == JPEG2000Lossless:
        tags["PixelRepresentation"] = draw(st.integers(0, 1))
        frame = encode(pixels, "JPEG2000", no_jp2=True)
        data = encapsulate([frame])
        return dicom(pixels, bits=bits, data=data, syntax=syntax, elements=elements, **tags)
    return dicom(pixels, bits=bits, syntax=syntax, elements=elements, **tags)


@st.composite
def plain_files(draw):
    """Draw a PNG or JPEG file of the true image, turned as its EXIF tag says."""
    orientation, exif = draw(maybe([1, 1, 3])), Image.Exif()
    exif[0x0112] = orientation
    truth = TRUTH if orientation == 1 else TRUTH[::-1, ::-1]
    grey = Image.fromarray(np.rint(truth * 255).astype(np.uint8))
    if draw(st.booleans()):
        mode, quality = draw(maybe(["L", "RGB", "CMYK"])), draw(st.integers(40, 95))
        image, is_progressive = grey.convert(mode), draw(st.booleans())
        return encode(image, "JPEG", exif=exif, quality=quality, progressive=is_progressive)
    if draw(st.booleans()):
        deep = np.rint(truth * (2 ** draw(st.integers(6, 16)) - 1)).astype(np.uint16)
        if draw(st.booleans()):
            deep[:, :3] = 65_535
        return encode(deep, exif=exif)
    image = grey.convert(draw(maybe(["L", "RGB", "RGBA", "LA", "P"])))
    frames = {"save_all": True, "append_images": [grey.convert(image.mode).rotate(90)]}
    return encode(image, exif=exif, **(frames if draw(st.booleans()) else {}))


@st.composite
def files(draw):
    """Draw the bytes of a file, and whether it is whole."""
    data = draw(st.one_of(dicom_files(), dicom_files(), plain_files()))
    if draw(maybe([False, False, False, True])):
        return data[: draw(st.integers(0, len(data) - 1))], False
    return data, True


def run(root, contents):
    """Index and decode files, and return the records, the cache and the pixels opened again."""
    names = [f"{number}.dcm" for number in range(len(contents))]
    for name, data in zip(names, contents, strict=True):
        (root / name).write_bytes(data)
    versions = [str((root / name).stat().st_mtime_ns) for name in names]
    listing = {"image": names, "uri": names, "bytes": [*map(len, contents)], "version": versions}
    pd.DataFrame(listing).to_parquet(root / "listing.parquet")
    where = {"scratch": root / "scratch", "num_workers": 2}
    decode_images(CONFIG, str(root), root, root, **where)
    images = pd.read_parquet(root / "images.parquet").set_index("image")
    ledger = pd.read_parquet(root / "excluded.parquet").set_index("image")
    cache = PixelCache(CONFIG, root, len(names), root / "scratch")
    return images, ledger, cache.pixels(), open_pixels(CONFIG, str(root), root, root, **where)


@given(st.lists(files(), min_size=2, max_size=2))
@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.reuse, Phase.generate],  # to make an example smaller would take minutes
    suppress_health_check=[HealthCheck.too_slow],
)
def test_each_image_ends_with_its_own_pixels_or_a_reason(odd):
    good = [encode(pixels) for pixels in NEIGHBOURS]
    contents = [good[0], odd[0][0], good[1], odd[1][0], good[2]]
    with tempfile.TemporaryDirectory() as folder:
        images, ledger, stored, pixels = run(Path(folder), contents)
        for row, neighbour in zip((0, 2, 4), NEIGHBOURS, strict=True):
            np.testing.assert_array_equal(stored[row], neighbour)
        for row, (_, is_whole) in zip((1, 3), odd, strict=True):
            name, status = f"{row}.dcm", images["status"].iloc[row]
            if status == "ok":
                assert zlib.crc32(stored[row]) == images.loc[name, "crc32"]
                np.testing.assert_array_equal(pixels.read(np.array([row]))[0], stored[row])
                assert not is_whole or is_the_true_one(stored[row])
            else:
                assert ledger.loc[name, "reason"] in tuple(Reason)
                assert len(ledger.loc[name, "detail"]) > 8
                assert not stored[row].any()
        for row, neighbour in zip((4, 2, 0), NEIGHBOURS[::-1], strict=True):
            np.testing.assert_array_equal(pixels.read(np.array([row]))[0], neighbour)


def is_the_true_one(pixels):
    inner = np.s_[:, 3:-3]  # without a border
    return abs(np.corrcoef(pixels[inner].ravel(), TRUTH[inner].ravel())[0, 1]) > MIN_CORRELATION
