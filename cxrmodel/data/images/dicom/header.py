"""The header of a DICOM image and of its compressed frame: checked before pixels are decoded.

Importing this needs the extra `dicom`.
"""

from __future__ import annotations

import io
import struct
from itertools import pairwise
from typing import NamedTuple

from PIL import Image
from pydicom import Dataset
from pydicom.encaps import get_frame, parse_basic_offsets
from pydicom.filereader import read_partial
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import get_expected_length, get_j2k_parameters
from pydicom.tag import BaseTag, SequenceDelimiterTag, Tag
from pydicom.uid import (
    HTJ2K,
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)

from cxrmodel.data.images.dicom import codecs
from cxrmodel.data.images.dicom.tags import (
    PARSE_ERRORS,
    damaged,
    text,
    transfer_syntax,
    unsupported,
    whole_number,
)
from cxrmodel.data.images.formats import check_size
from cxrmodel.errors import ImageError

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

J2K_SYNTAXES = (*JPEG2000TransferSyntaxes, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
J2K_SIZE = b"\xff\x4f\xff\x51"
JPEG_START, JPEG_SEGMENT = b"\xff\xd8", 0xFF
JPEG_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # SOF0 to 15, SOF55
JPEG_SCAN = 0xDA
NO_RUN = 128  # as a control byte: below it, bytes as they are; above it, one byte repeated

for _syntax in codecs.SYNTAXES:
    get_decoder(_syntax).add_plugin(codecs.PLUGIN, (codecs.__name__, "decode_frame"))


class Frame(NamedTuple):
    """The header of a JPEG, JPEG-LS or JPEG 2000 frame.

    Attributes:
        width: In pixels.
        height: In pixels.
        samples: Per pixel.
        bits: Per sample.
        is_signed: None where the frame does not say.
    """

    width: int
    height: int
    samples: int
    bits: int
    is_signed: bool | None


def read_header(data: bytes, max_megapixels: float) -> tuple[Dataset, bool]:
    """Read the tags that matter to the pixels, which are still encoded.

    What the header says of its bits is compared with a compressed frame, which takes precedence:
    BitsAllocated, BitsStored, HighBit and PixelRepresentation are then those of the frame.

    Returns:
        The tags, and whether the header and the frame disagree on PixelRepresentation: some
        encoders lose it, some headers have it wrong.

    Raises:
        ImageError: The image is too large, damaged, absent, or nothing here decodes it.
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
        data += END_OF_FRAGMENTS  # without it pydicom would find no tag at all
    last_tag = 0

    def note(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal last_tag
        last_tag = max(last_tag, 0 if tag == SequenceDelimiterTag else int(tag))
        return False

    try:
        wanted: list[BaseTag | int] = [*map(Tag, TAGS), *OVERLAY_BITS]
        dataset: Dataset = read_partial(io.BytesIO(data), note, specific_tags=wanted)
    except PARSE_ERRORS as error:
        raise damaged("its tags cannot be parsed as its transfer syntax says") from error
    if last_tag < Tag("Columns") and last_tag >> 16 != DIRECTORY_GROUP:
        raise damaged("it ends before it says how many rows and columns it has")
    _check_size(dataset, max_megapixels)
    _check_kind(dataset)
    stated = dataset.PixelRepresentation
    _check_pixel_data(dataset, syntax)
    return dataset, dataset.PixelRepresentation != stated


def _check_size(dataset: Dataset, max_megapixels: float) -> None:
    if "Rows" not in dataset or "Columns" not in dataset:
        raise unsupported("it holds no image")
    height, width = whole_number(dataset, "Rows") or 0, whole_number(dataset, "Columns") or 0
    check_size(width, height, max_megapixels)
    if min(width, height) < 1:
        raise damaged(f"{width} x {height} pixels")
    dataset.add_new("Rows", "US", height)
    dataset.add_new("Columns", "US", width)


def _check_kind(dataset: Dataset) -> None:
    num_frames = whole_number(dataset, "NumberOfFrames") or 1
    if num_frames != 1:
        raise unsupported(f"{num_frames} frames, and a chest X-ray has one")
    if any(keyword in dataset for keyword in FLOATS):
        raise unsupported("its pixels are floating-point numbers")
    dataset.add_new("NumberOfFrames", "IS", 1)
    if "PixelData" not in dataset or not dataset["PixelData"].value:
        raise damaged("it ends before its pixels")
    kind = text(dataset, "PhotometricInterpretation")
    numbers = {keyword: whole_number(dataset, keyword) for keyword in NUMBERS}
    missing = [keyword for keyword, number in numbers.items() if number is None]
    missing += [] if kind else ["PhotometricInterpretation"]
    if missing:
        raise damaged(f"it lacks {', '.join(missing)}")
    bits, stored, sign, samples = (int(numbers[keyword] or 0) for keyword in NUMBERS)
    if bits not in BITS_ALLOCATED:
        raise unsupported(f"{bits} bits per sample")
    if kind not in SAMPLES:
        raise unsupported(f"photometric interpretation {kind[:MAX_KIND_CHARS]!r}")
    if samples != SAMPLES[kind]:
        raise damaged(f"{samples} samples per pixel, and {kind} has {SAMPLES[kind]}")
    if not 1 <= stored <= bits:
        raise damaged(f"{stored} bits stored in {bits} allocated")
    if sign not in (0, 1):
        raise damaged(f"its PixelRepresentation is {sign}, and neither 0 nor 1")
    for keyword in NUMBERS:
        dataset.add_new(keyword, "US", numbers[keyword])
    dataset.PhotometricInterpretation = kind  # without blanks, in capitals
    if samples > 1 and whole_number(dataset, "PlanarConfiguration") is None:
        dataset.PlanarConfiguration = 0


def _check_pixel_data(dataset: Dataset, syntax: UID) -> None:
    plugins = _decoder_plugins(syntax)
    if not isinstance(dataset.PixelData, bytes):
        raise damaged("its pixels are not bytes")
    if not syntax.is_encapsulated:
        _check_length(dataset)
        return
    data = _only_frame(dataset, syntax)
    if syntax == RLELossless:  # the only compressed frames without a header of their own
        return
    frame = read_frame(data, syntax)
    if frame is None:
        raise damaged("its compressed image has no header that can be read")
    _check_frame(dataset, frame)
    _follow_frame(dataset, frame)
    if _is_beyond(("pillow",), dataset, syntax):
        if _is_beyond(plugins, dataset, syntax):
            raise _undecodable(syntax, f" with {frame.bits} bits per sample")
    elif "pillow" in plugins:
        _check_as_pillow_reads_it(data, frame)


def plugin_for(dataset: Dataset) -> str:
    """Return the plugin that decodes an image, empty for the first of pydicom's that can.

    Pillow wherever it can: what else is installed must not change the pixels.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    plugins = _decoder_plugins(syntax)
    if "pillow" in plugins and not _is_beyond(("pillow",), dataset, syntax):
        return "pillow"
    return codecs.PLUGIN if codecs.PLUGIN in plugins else ""


def _is_beyond(plugins: tuple[str, ...], dataset: Dataset, syntax: UID) -> bool:
    """Tell whether none of the plugins decodes as many bits per sample as an image has."""
    if dataset.BitsAllocated <= GREY_BITS:
        return False
    if syntax == JPEGExtended12Bit:
        return set(plugins) <= {"gdcm", "pillow"}
    return dataset.SamplesPerPixel > 1 and set(plugins) <= {"pillow"}


def _decoder_plugins(syntax: UID) -> tuple[str, ...]:
    """Return the names of the installed plugins that decode a transfer syntax."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise _undecodable(syntax) from error
    if not decoder.is_available:
        raise _undecodable(syntax)
    return decoder.available_plugins


def _only_frame(dataset: Dataset, syntax: UID) -> bytes:
    """Return the compressed frame of an image, of which there must be one."""
    try:
        num_offsets = len(parse_basic_offsets(dataset.PixelData))
        if num_offsets == 1:  # there is only one frame, whatever its table says of its start
            dataset.PixelData = NO_OFFSETS + dataset.PixelData[len(NO_OFFSETS) + OFFSET_BYTES :]
        data = get_frame(dataset.PixelData, 0, number_of_frames=1)
        if syntax == RLELossless and are_runs_too_long(data, 2 * dataset.Rows * dataset.Columns):
            raise damaged("its runs are longer than its rows and columns allow")
    except PARSE_ERRORS as error:
        raise damaged("its compressed pixels are cut short, or not a frame") from error
    if num_offsets > 1:
        raise unsupported(f"{num_offsets} frames, and a chest X-ray has one")
    return data


def _check_length(dataset: Dataset) -> None:
    """Refuse pixels that are too few, or followed by more than zeros: the header is wrong."""
    expected, found = get_expected_length(dataset), len(dataset.PixelData)
    if found < expected:
        raise damaged(f"its pixels take {found:,} bytes, and should take {expected:,}")
    surplus = dataset.PixelData[expected + expected % 2 :]
    if len(surplus) > expected // dataset.Rows or surplus.strip(b"\0"):
        raise damaged(
            f"its pixels take {found:,} bytes, and as its header says they would take {expected:,}"
        )


def _check_frame(dataset: Dataset, frame: Frame) -> None:
    if (frame.width, frame.height) != (dataset.Columns, dataset.Rows):
        raise damaged(
            f"its compressed image is of {frame.width} x {frame.height} pixels, and its header "
            f"says {dataset.Columns} x {dataset.Rows}"
        )
    if frame.samples != dataset.SamplesPerPixel:
        raise damaged(
            f"its compressed image has {frame.samples} samples per pixel, and its header says "
            f"{dataset.SamplesPerPixel}"
        )
    if not 1 <= frame.bits <= max(BITS_ALLOCATED):
        raise unsupported(f"{frame.bits} bits per sample")


def _check_as_pillow_reads_it(data: bytes, frame: Frame) -> None:
    """Refuse a frame in which Pillow finds another size, which it would allocate."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "JPEG2000")) as image:
            size = image.size
    except (*PARSE_ERRORS, SyntaxError, Image.DecompressionBombError) as error:
        raise damaged("its compressed image cannot be decoded") from error
    if size != (frame.width, frame.height):
        raise damaged("its compressed image has two sizes")


def _follow_frame(dataset: Dataset, frame: Frame) -> None:
    signs_are_sure = frame.is_signed is not None or dataset.PixelRepresentation == 0
    dataset.BitsStored = frame.bits if signs_are_sure else min(dataset.BitsStored, frame.bits)
    dataset.BitsAllocated = GREY_BITS if frame.bits <= GREY_BITS else max(BITS_ALLOCATED)
    dataset.HighBit = dataset.BitsStored - 1
    if frame.is_signed is not None:
        dataset.PixelRepresentation = int(frame.is_signed)


def _undecodable(syntax: UID, with_what: str = "") -> ImageError:
    return unsupported(f"no decoder for the transfer syntax {syntax.name}{with_what}")


def read_frame(data: bytes, syntax: UID) -> Frame | None:
    """Read the header of a compressed frame; None where there is none that can be read."""
    try:
        return _read_j2k(data) if syntax in J2K_SYNTAXES else _read_jpeg(data)
    except (struct.error, IndexError):
        return None


def _read_j2k(data: bytes) -> Frame | None:
    """Source: ISO/IEC 15444-1, A.5.1."""
    stated = get_j2k_parameters(data)
    if not stated:
        return None
    at = data.index(J2K_SIZE) + 8  # markers, length and capabilities
    right, bottom, left, top = struct.unpack_from(">4L", data, at)
    (samples,) = struct.unpack_from(">H", data, at + 32)
    return Frame(right - left, bottom - top, samples, stated["precision"], stated["is_signed"])


def _read_jpeg(data: bytes) -> Frame | None:
    """Source: ISO/IEC 10918-1, B.2.2, and 14495-1, C.2.2, whose segments are alike."""
    position = len(JPEG_START)
    if not data.startswith(JPEG_START):
        return None
    while data[position] == JPEG_SEGMENT:
        marker = data[position + 1]
        if marker == JPEG_SEGMENT:  # any number of these bytes may precede a marker
            position += 1
        elif marker in JPEG_FRAMES:
            bits, height, width, samples = struct.unpack_from(">BHHB", data, position + 4)
            return Frame(width, height, samples, bits, None)
        elif marker == JPEG_SCAN:
            return None
        else:
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return None


def are_runs_too_long(frame: bytes, most: int) -> bool:
    """Tell whether an RLE frame has a segment that unpacks to more than `most` bytes.

    Raises:
        struct.error: The frame is shorter than its header.
    """
    num_segments, *starts = struct.unpack_from("<16L", frame)
    ends = [*starts[:num_segments], len(frame)]
    return any(_run_length(frame[start:end], most) > most for start, end in pairwise(ends))


def _run_length(segment: bytes, most: int) -> int:
    """Add up the run lengths of an RLE segment. Source: DICOM PS3.5, section G.3."""
    position = total = 0
    while position < len(segment) and total <= most:
        control = segment[position]
        if control > NO_RUN:
            position, total = position + 2, total + 257 - control
        elif control < NO_RUN:
            position, total = position + control + 2, total + control + 1
        else:
            position += 1
    return total
