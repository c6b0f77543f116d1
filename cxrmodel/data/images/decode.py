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
JPEG_SCALES = (8, 4, 2)
MIN_REDUCTION = 6  # left to the resizing: then the square differs by at most one grey level
UPRIGHT = 1

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


class Grey(NamedTuple):
    """An upright image in grey, perhaps decoded at a reduced scale.

    Attributes:
        image: Pixels, mode L.
        width: Of the file's image upright, in px.
        height: Likewise.
        scale: Pixels of the file along a side of each pixel here: 1, 2, 4 or 8.
    """

    image: Image.Image
    width: int
    height: int
    scale: int


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

    A JPEG of at least 12 times config.size is decoded at 1/2, 1/4 or 1/8 of its size, which is
    faster; the square differs from that of the whole image by at most one grey level.

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
        grey = decode(data, config)
    except _UNTOLD as error:
        detail = "its headers or pixels are not as its format allows"
        raise ImageError(Reason.DAMAGED_IMAGE, detail) from error
    except _TOLD as error:
        raise ImageError(Reason.DAMAGED_IMAGE, str(error) or "it cannot be decoded") from error
    mode, counts = grey.image.mode, np.array(grey.image.histogram(), np.int64)
    if mode != "L":
        raise ImageError(Reason.DAMAGED_IMAGE, f"it decodes to pixels of the kind {mode}")
    pixels = np.array(_to_square(grey, config), dtype=np.uint8)
    return DecodedImage(pixels, grey.width, grey.height, used_levels(counts))


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


def _decode_dicom(data: bytes, config: Preprocessing) -> Grey:
    require_pydicom()
    from cxrmodel.data.images.dicom.display import decode_dicom  # noqa: PLC0415 - an optional extra

    return _whole(Image.fromarray(decode_dicom(data, config.max_megapixels)))


def _whole(image: Image.Image) -> Grey:
    return Grey(image, *image.size, scale=1)


def _decode_png(data: bytes, config: Preprocessing) -> Grey:
    # Not Image.open, whose size limit is global and warns. This only reads the headers.
    image = PngImageFile(io.BytesIO(data))
    check_size(*image.size, config.max_megapixels)
    if not image.tile:
        raise ImageError(Reason.DAMAGED_IMAGE, "it has no pixels")
    image.verify()  # checksums of every chunk, which decoding skips in part; leaves image unusable
    if data.rfind(PNG_END) < 0:
        raise ImageError(Reason.DAMAGED_IMAGE, "its last chunk is missing or damaged")
    return _whole(_upright(_load_all_rows(data)))


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


def _decode_jpeg(data: bytes, config: Preprocessing) -> Grey:
    image = JpegImageFile(io.BytesIO(data))
    width, height = image.size
    check_size(width, height, config.max_megapixels)
    num_scans = data.count(JPEG_SCAN)  # each may go over all pixels again, for a few bytes
    if num_scans > MAX_JPEG_SCANS:
        raise ImageError(Reason.TOO_LARGE, f"{num_scans} scans, more than {MAX_JPEG_SCANS}")
    scale = _jpeg_scale(width, height, config) if _orientation(image) == UPRIGHT else 1
    if scale == 1:
        image.load()
        return _whole(_upright(image))
    image.draft(None, (width // scale, height // scale))
    image.load()
    return Grey(_to_grey(image), width, height, scale)


def _jpeg_scale(width: int, height: int, config: Preprocessing) -> int:
    """Return by how much a JPEG may be reduced when it is decoded, 1 for not at all.

    The edges of the part that is used must fall between pixels at the reduced scale too: a pixel
    across an edge would mix in what lies outside.
    """
    left, top, right, bottom = box = _part_used(width, height, config)
    most = min(right - left, bottom - top) // (MIN_REDUCTION * config.size)
    fitting = (s for s in JPEG_SCALES if s <= most and all(edge % s == 0 for edge in box))
    return next(fitting, 1)


def _upright(image: Image.Image) -> Image.Image:
    """Return a loaded image in grey, turned as its EXIF tags say."""
    turn = _TURNS.get(_orientation(image))
    grey = _to_grey(image)
    return grey if turn is None else grey.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except (*_TOLD, *_UNTOLD):  # the tags are damaged, but the pixels are sound
        return UPRIGHT
    return orientation if isinstance(orientation, int) else UPRIGHT


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


def _to_square(grey: Grey, config: Preprocessing) -> Image.Image:
    size = config.size
    if (grey.width, grey.height) == (size, size):
        return grey.image
    left, top, right, bottom = _part_used(grey.width, grey.height, config)
    scale = grey.scale
    part = grey.image.crop((left // scale, top // scale, right // scale, bottom // scale))
    if config.fit == "pad":
        return _padded(part, (right - left, bottom - top), size)
    return part.resize((size, size), FILTER)


def _part_used(width: int, height: int, config: Preprocessing) -> tuple[int, int, int, int]:
    """Return the left, top, right and bottom edge of what becomes the square, in px."""
    if config.fit != "crop":
        return 0, 0, width, height
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _padded(image: Image.Image, shape: tuple[int, int], size: int) -> Image.Image:
    """Scale the longer side to size, then centre on black; the canvas is as small as it can be."""
    scale = size / max(shape)
    width, height = (max(1, round(side * scale)) for side in shape)
    square = Image.new("L", (size, size))
    square.paste(image.resize((width, height), FILTER), ((size - width) // 2, (size - height) // 2))
    return square
