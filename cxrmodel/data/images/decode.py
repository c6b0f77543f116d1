"""From the bytes of a PNG, JPEG or DICOM file to a square of 8-bit grey."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from cxrmodel.data.images.formats import check_size, format_of, require_pydicom
from cxrmodel.data.images.grey import count_codes, spread_most, used_levels
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import ImageError

FILTER = Image.Resampling.BILINEAR  # Pillow widens the kernel when it reduces: antialiased
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
JPEG_SCAN, MAX_JPEG_SCANS = b"\xff\xda", 64

# Raised for bytes that are not what their header says: by Pillow, with a message about the file,
# and by Python, whose message says nothing of the file.
_TOLD = (OSError, SyntaxError, ValueError)
_UNTOLD = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    struct.error,
    zlib.error,
)


class Preprocessing(Protocol):
    """How a file becomes a square: `ImagesConfig`, or what a bundle says of it."""

    @property
    def size(self) -> int:
        """Side of the square in pixels."""
        ...

    @property
    def fit(self) -> Literal["crop", "pad", "resize"]:
        """How another shape becomes square."""
        ...

    @property
    def max_megapixels(self) -> float:
        """Larger images are refused unread."""
        ...


class DecodedImage(NamedTuple):
    """A decoded image, and its size in the file.

    Attributes:
        pixels: (S, S) uint8, black 0.
        width: Of the file's image upright, in px, before it was made square.
        height: Likewise.
        num_levels: Grey levels that 98 % of the file's pixels lie within, of 256.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    num_levels: int


def decode_image(data: bytes, config: Preprocessing) -> DecodedImage:
    """Decode a PNG, JPEG or DICOM file, told apart by content, and make it a square.

    Colour becomes luminance (for NIH's RGBA copies, whose channels are equal, the grey value),
    alpha is dropped, an animation becomes its still image, and an image that lies on its side by
    its EXIF tags is put upright. 16-bit grey, in a PNG seldom more than the 10 to 14 bits of a
    detector, is spread from the 0.1th to the 99.9th percentile of the pixels: see
    `grey.spread_most`. An image of config.size squared passes every fit unchanged. Thread-safe;
    leaves Pillow's global settings alone.

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
    except _UNTOLD as error:
        detail = "its headers or pixels are not as its format allows"
        raise ImageError(Reason.DAMAGED_IMAGE, detail) from error
    except _TOLD as error:
        raise ImageError(Reason.DAMAGED_IMAGE, str(error) or "it cannot be decoded") from error
    if grey.mode != "L":
        raise ImageError(Reason.DAMAGED_IMAGE, f"it decodes to pixels of the kind {grey.mode}")
    pixels = np.array(_to_square(grey, config), dtype=np.uint8)
    return DecodedImage(pixels, *grey.size, used_levels(np.array(grey.histogram(), np.int64)))


def check_square(pixels: NDArray[np.uint8], size: int) -> None:
    """Check the shape and type of decoded pixels: too many would overwrite the next image.

    Raises:
        ImageError: They are not uint8 of shape (size, size).
    """
    if pixels.dtype != np.uint8 or pixels.shape != (size, size):
        raise ImageError(
            Reason.DAMAGED_IMAGE,
            f"it decodes to {pixels.dtype} of shape {pixels.shape}, and not to {(size, size)}",
        )


def _decode_dicom(data: bytes, max_megapixels: float) -> Image.Image:
    require_pydicom()
    from cxrmodel.data.images.dicom.display import decode_dicom  # noqa: PLC0415 - an optional extra

    return Image.fromarray(decode_dicom(data, max_megapixels))


def _decode_png(data: bytes, max_megapixels: float) -> Image.Image:
    # Not Image.open, whose size limit is global and warns. This only reads the headers.
    image = PngImageFile(io.BytesIO(data))
    check_size(*image.size, max_megapixels)
    if not image.tile:
        raise ImageError(Reason.DAMAGED_IMAGE, "it has no pixels")
    image.verify()  # checksums of every chunk, which decoding skips in part; leaves image unusable
    if data.rfind(PNG_END) < 0:
        raise ImageError(Reason.DAMAGED_IMAGE, "its last chunk is missing or damaged")
    return _upright(_load_all_rows(data))


def _load_all_rows(data: bytes) -> Image.Image:
    """Decode a PNG, and refuse one whose stream ends early, which Pillow does not report.

    Rows that the stream lacks keep what the image was filled with, so where the last row may be
    one of them, a second decoding with another fill tells. Interlaced rows come in another order,
    so those images are always decoded twice.
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
    num_scans = data.count(JPEG_SCAN)  # each may go over all pixels again, for a few bytes
    if num_scans > MAX_JPEG_SCANS:
        raise ImageError(Reason.TOO_LARGE, f"{num_scans} scans, more than {MAX_JPEG_SCANS}")
    image.load()
    return _upright(image)


def _upright(image: Image.Image) -> Image.Image:
    """Return a loaded image in grey, turned as its EXIF tags say."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (*_TOLD, *_UNTOLD):  # the tags are damaged, but the pixels are sound
        orientation = 1
    grey = _to_grey(image)
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return grey if turn is None else grey.transpose(turn)


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_deep(np.asarray(image))
    image.info.pop("transparency", None)  # or Pillow warns that "L" has none
    return image.convert("L")


def _from_deep(deep: NDArray[np.uint16]) -> Image.Image:
    table = spread_most(np.arange(2**16, dtype=np.float64), count_codes(deep))
    return Image.fromarray(table[deep])


# Source: EXIF 2.3, tag 0x0112: where the first row and column of the file belong.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DECODERS = {"png": _decode_png, "jpeg": _decode_jpeg, "dicom": _decode_dicom}


def _to_square(image: Image.Image, config: Preprocessing) -> Image.Image:
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
    """Scale the longer side to size, then centre on black; the canvas is as small as it can be."""
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    square = Image.new("L", (size, size))
    square.paste(image.resize((width, height), FILTER), ((size - width) // 2, (size - height) // 2))
    return square
