"""The tags of a DICOM file, read without trust. Importing this needs the extra `dicom`."""

from __future__ import annotations

import io
import logging
import math
import struct
import warnings
from collections.abc import Sequence

from PIL import Image
from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.encaps import get_frame, parse_basic_offsets
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import get_expected_length
from pydicom.tag import BaseTag, SequenceDelimiterTag, Tag
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)

from cxrmodel.data.images.dicom.frame import Frame, are_runs_too_long, has_own_header, read_frame
from cxrmodel.data.images.formats import DICOM_PREFIX, DICOM_PREFIX_AT, check_size, format_of
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import ImageError

META_AT, META_GROUP = DICOM_PREFIX_AT + len(DICOM_PREFIX), 0x0002
TRANSFER_SYNTAX, CODE_MEANING = Tag("TransferSyntaxUID"), Tag("CodeMeaning")

PARSE_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What pydicom raises on bytes that are not what their header says."""

# pydicom warns with the values it finds, and in a damaged file any tag may hold a patient's name.
# What keeps a frame from being decoded, which it logs with a traceback, the ledger tells.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom\b")


def transfer_syntax(data: bytes) -> UID | None:
    """Return the transfer syntax that a file names, None where it names none.

    Read by itself, before the rest: of a deflated file pydicom would inflate whatever there is.
    """
    meta = read_dataset(
        io.BytesIO(data[META_AT:]),
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, _vr, _length: tag >> 16 != META_GROUP,
        specific_tags=[TRANSFER_SYNTAX],
    )
    syntax = UID(_text(meta, TRANSFER_SYNTAX), IGNORE)
    return syntax if syntax.is_valid else None


def read_tags(head: bytes, keywords: Sequence[str]) -> tuple[dict[str, str], bool]:
    """Read some tags from the first bytes of a file, as text.

    Args:
        head: The file's first bytes.
        keywords: Names of the tags; of a sequence of codes, what the first means.

    Returns:
        The text of each tag found, and whether bytes beyond `head` cannot hold more of them. A
        PNG or JPEG has none.

    Raises:
        ImageError: This is no image file, or a DICOM file that cannot be read so far.
    """
    tags = {Tag(keyword): keyword for keyword in keywords}
    is_whole = False

    def is_past(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal is_whole
        is_whole = bool(tag > max(tags))
        return is_whole

    if format_of(head) != "dicom":
        return {}, True
    try:
        is_deflated = transfer_syntax(head) == DeflatedExplicitVRLittleEndian
        if not is_deflated:
            wanted: list[BaseTag | int] = [*tags, CODE_MEANING]
            dataset = read_partial(io.BytesIO(head), is_past, specific_tags=wanted)
            return {keyword: _text(dataset, tag) for tag, keyword in tags.items()}, is_whole
    except PARSE_ERRORS as error:
        detail = "its tags cannot be parsed as its transfer syntax says"
        raise ImageError(Reason.DAMAGED_IMAGE, detail) from error
    raise ImageError(Reason.UNSUPPORTED_IMAGE, "its tags are deflated, which is not read here")


def _text(dataset: Dataset, tag: int) -> str:
    """Return a tag's text, empty where it is absent, cut short or no text.

    Of its bytes as they are: pydicom's conversion warns with what it finds, and that may be an id.
    """
    if dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ":
        return _meaning(dataset, tag)
    element = dataset.get_item(tag) if tag in dataset else None
    if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
        return ""
    if len(element.value) != element.length:
        return ""
    return element.value.decode("utf-8", "backslashreplace").strip(" \0")


def _meaning(dataset: Dataset, tag: int) -> str:
    try:
        items = dataset[tag].value if tag in dataset else ()
        return _text(items[0], CODE_MEANING) if items else ""
    except PARSE_ERRORS:  # cut short: no text either
        return ""


MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
PALETTE = "PALETTE COLOR"
SAMPLES = {**dict.fromkeys((*MONOCHROME, PALETTE), 1), **dict.fromkeys(COLOUR, 3)}
MAX_KIND_CHARS = 16
DIRECTORY_GROUP = 0x0004
BITS_ALLOCATED = (1, 8, 16)
GREY_BITS = 8
PILLOW_SYNTAXES = (JPEGBaseline8Bit, JPEGExtended12Bit, *JPEG2000TransferSyntaxes)
NUMBERS = ("BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel")
REQUIRED = (*NUMBERS, "PhotometricInterpretation")
FLOATS = ("FloatPixelData", "DoubleFloatPixelData")
NO_TEXT = ("FD", "FL", "SL", "SS", "UL", "US")
TAGS = (
    *REQUIRED,
    *("Rows", "Columns", "HighBit", "PlanarConfiguration", "NumberOfFrames", "PixelData"),
    *FLOATS,
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    "PresentationLUTShape",
    *(f"{hue}PaletteColorLookupTableDescriptor" for hue in ("Red", "Green", "Blue")),
    *(f"{hue}PaletteColorLookupTableData" for hue in ("Red", "Green", "Blue")),
    *(f"Segmented{hue}PaletteColorLookupTableData" for hue in ("Red", "Green", "Blue")),
)

NO_OFFSETS = b"\xfe\xff\x00\xe0" + bytes(4)
OFFSET_BYTES = 4
END_OF_FRAGMENTS = b"\xfe\xff\xdd\xe0" + bytes(4)

OVERLAY_BITS = [Tag(group, 0x0102) for group in range(0x6000, 0x6020, 2)]
"""OverlayBitPosition of each overlay that a file may have."""


def damaged(detail: str) -> ImageError:
    """Return the error for a file that is not what its header says."""
    return ImageError(Reason.DAMAGED_IMAGE, detail)


def unsupported(detail: str) -> ImageError:
    """Return the error for a file that nothing here decodes."""
    return ImageError(Reason.UNSUPPORTED_IMAGE, detail)


def read_film(data: bytes, max_megapixels: float) -> tuple[Dataset, bool]:
    """Read the tags that matter to the pixels, which are still encoded.

    What the header says of its bits is held against a compressed frame, which knows better:
    BitsAllocated, BitsStored, HighBit and PixelRepresentation are then those of the frame.

    Returns:
        The tags, and whether the header and the frame disagree on PixelRepresentation: some
        encoders lose it, some headers have it wrong.

    Raises:
        ImageError: The film is too large, damaged, none, or nothing here decodes it.
    """
    try:
        syntax = transfer_syntax(data)
    except PARSE_ERRORS as error:
        raise damaged("its file meta information cannot be parsed") from error
    if syntax is None:
        raise damaged("it names no transfer syntax")
    if syntax == DeflatedExplicitVRLittleEndian:
        raise _undecodable(syntax)
    if syntax in AllTransferSyntaxes and syntax.is_encapsulated:
        data += END_OF_FRAGMENTS  # or, where the file lacks it, pydicom would find no tag at all
    last_tag = 0

    def note(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal last_tag
        last_tag = max(last_tag, 0 if tag == SequenceDelimiterTag else int(tag))
        return False

    try:
        wanted: list[BaseTag | int] = [*map(Tag, TAGS), *OVERLAY_BITS]
        film: Dataset = read_partial(io.BytesIO(data), note, specific_tags=wanted)
    except PARSE_ERRORS as error:
        raise damaged("its tags cannot be parsed as its transfer syntax says") from error
    if last_tag < Tag("Columns") and last_tag >> 16 != DIRECTORY_GROUP:
        raise damaged("it ends before it says how many rows and columns it has")
    _check_size(film, max_megapixels)
    _check_kind(film)
    stated = film.PixelRepresentation
    _check_pixel_data(film, syntax)
    return film, film.PixelRepresentation != stated


def whole_number(film: Dataset, keyword: str) -> int | None:
    """Return a tag's number, None where it is absent or empty.

    Raises:
        ImageError: It is no whole number.
    """
    try:
        value = film.get(keyword)
        return None if value is None or value == "" else int(value)
    except PARSE_ERRORS as error:
        raise damaged(f"its {keyword} is no whole number") from error


def text(film: Dataset, keyword: str) -> str:
    """Return a tag's text in capitals, empty where it is absent or none."""
    try:
        return str(film.get(keyword) or "").strip().upper()
    except PARSE_ERRORS:
        return ""


def real_numbers(film: Dataset, keyword: str) -> list[float]:
    """Return a tag's numbers, NaN for each that is none; empty where it is absent or empty.

    A decimal comma is read as a point: some devices write decimals as their language does.
    """
    element = film.get_item(keyword) if keyword in film else None
    if element is None or (not element.value and element.value != 0):
        return []
    if isinstance(element, RawDataElement) and element.VR not in NO_TEXT:
        text_of_all = bytes(element.value).decode("ascii", "replace")
        return [_real_number(part) for part in text_of_all.split("\\")]
    try:
        values = film[keyword].value
    except PARSE_ERRORS:
        return [math.nan]
    several = isinstance(values, Sequence) and not isinstance(values, str)
    return [_real_number(str(value)) for value in (values if several else [values])]


def _real_number(text: str) -> float:
    try:
        return float(text.strip(" \0").replace(",", "."))
    except ValueError:
        return math.nan


def _check_size(film: Dataset, max_megapixels: float) -> None:
    if "Rows" not in film or "Columns" not in film:
        raise unsupported("it holds no image")
    height, width = whole_number(film, "Rows") or 0, whole_number(film, "Columns") or 0
    check_size(width, height, max_megapixels)
    if min(width, height) < 1:
        raise damaged(f"{width} x {height} pixels")
    film.add_new("Rows", "US", height)
    film.add_new("Columns", "US", width)


def _check_kind(film: Dataset) -> None:
    num_frames = whole_number(film, "NumberOfFrames") or 1
    if num_frames != 1:
        raise unsupported(f"{num_frames} frames, and a film has one")
    if any(keyword in film for keyword in FLOATS):
        raise unsupported("its pixels are floating-point numbers")
    film.add_new("NumberOfFrames", "IS", 1)
    if "PixelData" not in film or not film["PixelData"].value:
        raise damaged("it ends before its pixels")
    kind = text(film, "PhotometricInterpretation")
    numbers = {keyword: whole_number(film, keyword) for keyword in NUMBERS}
    missing = [keyword for keyword, number in numbers.items() if number is None]
    missing += [] if kind else ["PhotometricInterpretation"]
    if missing:
        raise damaged(f"it lacks {', '.join(missing)}")
    bits, stored, sign, samples = (int(numbers[keyword] or 0) for keyword in NUMBERS)
    if bits not in BITS_ALLOCATED:
        raise unsupported(f"{bits} bits a sample")
    if kind not in SAMPLES:
        raise unsupported(f"photometric interpretation {kind[:MAX_KIND_CHARS]!r}")
    if samples != SAMPLES[kind]:
        raise damaged(f"{samples} samples a pixel, and {kind} has {SAMPLES[kind]}")
    if not 1 <= stored <= bits:
        raise damaged(f"{stored} bits stored in {bits} allocated")
    if sign not in (0, 1):
        raise damaged(f"its PixelRepresentation is {sign}, and neither 0 nor 1")
    for keyword in NUMBERS:
        film.add_new(keyword, "US", numbers[keyword])
    film.PhotometricInterpretation = kind  # without blanks, in capitals
    if samples > 1 and whole_number(film, "PlanarConfiguration") is None:
        film.PlanarConfiguration = 0


def _check_pixel_data(film: Dataset, syntax: UID) -> None:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise _undecodable(syntax) from error
    if not decoder.is_available:
        raise _undecodable(syntax)
    if not isinstance(film.PixelData, bytes):
        raise damaged("its pixels are no bytes")
    if not syntax.is_encapsulated:
        _check_length(film)
        return
    try:
        num_offsets = len(parse_basic_offsets(film.PixelData))
        if num_offsets == 1:  # one frame is all there is, wherever its table says it begins
            film.PixelData = NO_OFFSETS + film.PixelData[len(NO_OFFSETS) + OFFSET_BYTES :]
        data = get_frame(film.PixelData, 0, number_of_frames=1)
        if syntax == RLELossless and are_runs_too_long(data, 2 * film.Rows * film.Columns):
            raise damaged("its runs are longer than its rows and columns allow")
    except PARSE_ERRORS as error:
        raise damaged("its compressed pixels are cut short, or no frame") from error
    if num_offsets > 1:
        raise unsupported(f"{num_offsets} frames, and a film has one")
    if has_own_header(syntax):
        frame = read_frame(data, syntax)
        if frame is None:
            raise damaged("its compressed image has no header that can be read")
        _check_frame(film, frame)
        is_deep = frame.bits > GREY_BITS and (syntax == JPEGExtended12Bit or frame.samples > 1)
        if is_deep and decoder.available_plugins == ("pillow",):
            raise _undecodable(syntax, f" with {frame.bits} bits a sample")
        if syntax in PILLOW_SYNTAXES:
            _check_as_pillow_reads_it(data, frame)
        _follow_frame(film, frame)


def _check_length(film: Dataset) -> None:
    """Refuse pixels that are too few, or followed by more than zeros: their layout is another."""
    expected, found = get_expected_length(film), len(film.PixelData)
    if found < expected:
        raise damaged(f"its pixels take {found:,} bytes, and should take {expected:,}")
    surplus = film.PixelData[expected + expected % 2 :]
    if len(surplus) > expected // film.Rows or surplus.strip(b"\0"):
        raise damaged(
            f"its pixels take {found:,} bytes, and as its header says they would take {expected:,}"
        )


def _check_frame(film: Dataset, frame: Frame) -> None:
    if (frame.width, frame.height) != (film.Columns, film.Rows):
        raise damaged(
            f"its compressed image is of {frame.width} x {frame.height} pixels, and its header "
            f"says {film.Columns} x {film.Rows}"
        )
    if frame.samples != film.SamplesPerPixel:
        raise damaged(
            f"its compressed image has {frame.samples} samples a pixel, and its header says "
            f"{film.SamplesPerPixel}"
        )
    if not 1 <= frame.bits <= max(BITS_ALLOCATED):
        raise unsupported(f"{frame.bits} bits a sample")


def _check_as_pillow_reads_it(data: bytes, frame: Frame) -> None:
    """Refuse a frame in which Pillow finds another size: it allocates what it finds."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "JPEG2000")) as image:
            size = image.size
    except (*PARSE_ERRORS, SyntaxError, Image.DecompressionBombError) as error:
        raise damaged("its compressed image cannot be decoded") from error
    if size != (frame.width, frame.height):
        raise damaged("its compressed image has two sizes")


def _follow_frame(film: Dataset, frame: Frame) -> None:
    signs_are_sure = frame.is_signed is not None or film.PixelRepresentation == 0
    film.BitsStored = frame.bits if signs_are_sure else min(film.BitsStored, frame.bits)
    film.BitsAllocated = GREY_BITS if frame.bits <= GREY_BITS else max(BITS_ALLOCATED)
    film.HighBit = film.BitsStored - 1
    if frame.is_signed is not None:
        film.PixelRepresentation = int(frame.is_signed)


def _undecodable(syntax: UID, with_what: str = "") -> ImageError:
    return unsupported(f"no decoder for the transfer syntax {syntax.name}{with_what}")
