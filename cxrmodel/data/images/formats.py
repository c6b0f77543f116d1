"""Formats and sizes of image files, checked before anything of that size is allocated."""

from __future__ import annotations

from typing import Literal

from cxrmodel.data.files.listing import DICOM_PREFIX, DICOM_PREFIX_AT
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import DataError, ImageError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
MAX_SIDE_PX = 65_535  # the most that JPEG and DICOM can state
MAX_BYTES_PER_PIXEL, MAX_HEADER_BYTES = 8, 16 << 20  # uncompressed 16-bit RGBA
SHOWN_BYTES = 12


def format_of(data: bytes) -> Literal["png", "jpeg", "dicom"]:
    """Return a file's format by its content, whatever its name.

    Raises:
        ImageError: The file is empty, or of another format.
    """
    if data.startswith(PNG_SIGNATURE):
        return "png"
    if data.startswith(JPEG_SIGNATURE):
        return "jpeg"
    if data.startswith(DICOM_PREFIX, DICOM_PREFIX_AT):
        return "dicom"
    if not data:
        raise ImageError(Reason.DAMAGED_IMAGE, "the file is empty")
    raise ImageError(
        Reason.UNSUPPORTED_IMAGE,
        f"not a PNG, JPEG or DICOM file: it begins with {_shown(data[:SHOWN_BYTES])}",
    )


def check_size(width: int, height: int, max_megapixels: float) -> None:
    """Refuse an image that is too large to decode.

    Raises:
        ImageError: It has too many pixels, or too long a side.
    """
    if width * height > max_megapixels * 1e6:
        limit = f"images.max_megapixels = {max_megapixels:g}"
    elif max(width, height) > MAX_SIDE_PX:
        limit = f"{MAX_SIDE_PX} on a side"
    else:
        return
    raise ImageError(Reason.TOO_LARGE, f"{width} x {height} pixels, more than {limit}")


def max_bytes(max_megapixels: float) -> int:
    """Return the size of the largest file that an image of that many pixels can have."""
    return int(max_megapixels * 1e6) * MAX_BYTES_PER_PIXEL + MAX_HEADER_BYTES


def check_bytes(num_bytes: int, max_megapixels: float) -> None:
    """Refuse a file that is larger than any image of that many pixels, before it is read.

    Raises:
        ImageError: It is too large.
    """
    if num_bytes > max_bytes(max_megapixels):
        raise ImageError(
            Reason.TOO_LARGE,
            f"{num_bytes:,} bytes, more than images.max_megapixels = {max_megapixels:g} can take",
        )


def require_pydicom() -> None:
    """Raise a DataError that names the extra where pydicom is not installed."""
    try:
        import pydicom  # noqa: F401, PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        raise DataError(
            "The data set holds DICOM files, which need pydicom: install the extra `dicom`, "
            "as in pip install 'cxrmodel[dicom]'."
        ) from error


def _shown(head: bytes) -> str:
    """Return bytes as text where they are text, else in hexadecimal."""
    text = head.decode("ascii", errors="replace")
    return f'"{text}"' if text.isprintable() and text.isascii() else f"the bytes {head.hex(' ')}"
