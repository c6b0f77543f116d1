"""From the bytes of a PNG to a square of 8-bit grey."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from cxrmodel.config import ImagesConfig
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import ImageError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">8x4x4sII")  # signature, length, then IHDR's type, width and height
FILTER = Image.Resampling.BILINEAR  # Pillow widens the kernel when it reduces: antialiased

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


def decode_image(data: bytes, config: ImagesConfig) -> NDArray[np.uint8]:
    """Decode a PNG and make it a square.

    Colour becomes luminance (which for NIH's RGBA copies, of equal channels, is the grey value),
    alpha is dropped, 16 bits keep their upper 8. An image of config.size squared passes unchanged
    by every fit. Thread-safe; leaves Pillow's global settings alone.

    Args:
        data: The whole file.
        config: Side, fit and the largest size to decode.

    Returns:
        (S, S) uint8, black 0.

    Raises:
        ImageError: The bytes are not a PNG, are damaged, or have too many pixels.
    """
    _check_header(data, config.max_megapixels)
    try:
        # Not Image.open: its size limit is global and warns; the header has been checked here.
        PngImageFile(io.BytesIO(data)).verify()  # checksums of every chunk; decoding skips some
        grey = _to_grey(PngImageFile(io.BytesIO(data)))
    except _DAMAGE as error:
        raise ImageError(Reason.DAMAGED_IMAGE, str(error) or type(error).__name__) from error
    return np.array(_to_square(grey, config), dtype=np.uint8)


def _check_header(data: bytes, max_megapixels: float) -> None:
    if not data:
        raise ImageError(Reason.DAMAGED_IMAGE, "the file is empty")
    if not data.startswith(PNG_SIGNATURE):
        raise ImageError(Reason.UNSUPPORTED_IMAGE, f"not a PNG: it begins with {data[:8].hex(' ')}")
    if len(data) < HEADER.size:
        raise ImageError(Reason.DAMAGED_IMAGE, f"the file ends after {len(data)} bytes")
    kind, width, height = HEADER.unpack_from(data)
    if kind == b"IHDR" and width * height > max_megapixels * 1e6:
        raise ImageError(
            Reason.TOO_LARGE,
            f"{width} x {height} pixels, more than images.max_megapixels = {max_megapixels:g}",
        )


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("L")


def _to_square(image: Image.Image, config: ImagesConfig) -> Image.Image:
    size, (width, height) = config.size, image.size
    if (width, height) == (size, size):
        return image
    if config.fit == "pad":
        return _padded(image, size)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side) if config.fit == "crop" else None
    return image.resize((size, size), FILTER, box=box)


def _padded(image: Image.Image, size: int) -> Image.Image:
    """Scale the longer side to size, then centre on black: never a larger canvas than needed."""
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    square = Image.new("L", (size, size))
    square.paste(image.resize((width, height), FILTER), ((size - width) // 2, (size - height) // 2))
    return square
