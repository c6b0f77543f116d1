"""From the bytes of a PNG, JPEG or DICOM file to a square of 8-bit grey."""

from __future__ import annotations

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from cxrmodel.config import ImagesConfig
from cxrmodel.data.dicom.heads import require_pydicom
from cxrmodel.data.image_header import check_size, format_of
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import ImageError

FILTER = Image.Resampling.BILINEAR  # Pillow widens the kernel when it reduces: antialiased
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
JPEG_SCAN, MAX_JPEG_SCANS = b"\xff\xda", 64

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


class DecodedImage(NamedTuple):
    """A decoded image, and how large it was in its file.

    Attributes:
        pixels: (S, S) uint8, black 0.
        width: Of the file's image, in px, before it was made square.
        height: Likewise.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int


def decode_image(data: bytes, config: ImagesConfig) -> DecodedImage:
    """Decode a PNG, JPEG or DICOM file, told apart by content, and make it a square.

    Colour becomes luminance (which for NIH's RGBA copies, of equal channels, is the grey value),
    alpha is dropped, and an animation is its still image. 16-bit grey, which in a PNG is seldom
    more than the 10 to 14 bits of a detector, is spread from the least to the greatest value of
    the film, as a DICOM film without a window is: see `dicom.pixels.decode_dicom`.
    An image of config.size squared passes unchanged by every fit. Thread-safe; leaves Pillow's
    global settings alone.

    Args:
        data: The whole file.
        config: Side, fit and the largest size to decode.

    Returns:
        The square, and the size of what it was made from.

    Raises:
        ImageError: The bytes are of no known format, are damaged, or have too many pixels.
        DataError: They are DICOM, and pydicom is not installed.
    """
    decode = _DECODERS[format_of(data)]
    try:
        grey = decode(data, config.max_megapixels)
    except _DAMAGE as error:
        raise ImageError(Reason.DAMAGED_IMAGE, str(error) or type(error).__name__) from error
    return DecodedImage(np.array(_to_square(grey, config), dtype=np.uint8), *grey.size)


def _decode_dicom(data: bytes, max_megapixels: float) -> Image.Image:
    require_pydicom()
    from cxrmodel.data.dicom.pixels import decode_dicom  # noqa: PLC0415 - an optional extra

    return Image.fromarray(decode_dicom(data, max_megapixels))


def _decode_png(data: bytes, max_megapixels: float) -> Image.Image:
    # Not Image.open: its size limit is global and warns. This reads no further than the headers.
    image = PngImageFile(io.BytesIO(data))
    check_size(*image.size, max_megapixels)
    if not image.tile:
        raise ImageError(Reason.DAMAGED_IMAGE, "it has no pixels")
    image.verify()  # checksums of every chunk, which decoding skips in part; leaves image unusable
    if data.rfind(PNG_END) < 0:
        raise ImageError(Reason.DAMAGED_IMAGE, "its last chunk is missing or damaged")
    return _to_grey(_load_all_rows(data))


def _load_all_rows(data: bytes) -> Image.Image:
    """Decode a PNG, and refuse one whose stream ends early, of which Pillow says nothing.

    Rows that the stream lacks keep what the image was filled with, so where the last row may be
    such a one, another fill tells. Interlaced rows come in another order: then always.
    """
    image = _load_onto(data, 1)
    width, height = image.size
    last = image.crop((0, height - 1, width, height))
    is_filled = last.tobytes() == Image.new(image.mode, last.size, 1).tobytes()
    is_unsure = is_filled or "interlace" in image.info
    if is_unsure and image.tobytes() != _load_onto(data, 0).tobytes():
        raise ImageError(Reason.DAMAGED_IMAGE, "its pixels end before its last row")
    return image


def _load_onto(data: bytes, fill: int) -> Image.Image:
    image = PngImageFile(io.BytesIO(data))
    image.im = Image.new(image.mode, image.size, fill).im
    image.load()
    return image


def _decode_jpeg(data: bytes, max_megapixels: float) -> Image.Image:
    image = JpegImageFile(io.BytesIO(data))
    check_size(*image.size, max_megapixels)
    num_scans = data.count(JPEG_SCAN)  # each may go over all pixels again, at a few bytes' cost
    if num_scans > MAX_JPEG_SCANS:
        raise ImageError(Reason.TOO_LARGE, f"{num_scans} scans, more than {MAX_JPEG_SCANS}")
    return _to_grey(image)


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _spread(np.asarray(image))
    image.load()
    image.info.pop("transparency", None)  # or Pillow warns that "L" has none
    return image.convert("L")


def _spread(deep: NDArray[np.uint16]) -> Image.Image:
    least, greatest = int(deep.min()), int(deep.max())
    levels = (np.arange(2**16) - least) / max(greatest - least, 1)  # a blank film is black
    return Image.fromarray(np.rint(levels * 255).clip(0, 255).astype(np.uint8)[deep])


_DECODERS = {"png": _decode_png, "jpeg": _decode_jpeg, "dicom": _decode_dicom}


def _to_square(image: Image.Image, config: ImagesConfig) -> Image.Image:
    size, (width, height) = config.size, image.size
    if (width, height) == (size, size):
        return image
    if config.fit == "pad":
        return _padded(image, size)
    if config.fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return image.resize((size, size), FILTER)


def _padded(image: Image.Image, size: int) -> Image.Image:
    """Scale the longer side to size, then centre on black: never a larger canvas than needed."""
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    square = Image.new("L", (size, size))
    square.paste(image.resize((width, height), FILTER), ((size - width) // 2, (size - height) // 2))
    return square
