"""The header of a DICOM image, and all that can be checked before its pixels are decoded.

Importing this needs the extra `dicom`.
"""

from __future__ import annotations

import io

from PIL import Image
from pydicom import Dataset
from pydicom.encaps import get_frame, parse_basic_offsets
from pydicom.filereader import read_partial
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


def read_header(data: bytes, max_megapixels: float) -> tuple[Dataset, bool]:
    """Read the tags that matter to the pixels, which are still encoded.

    What the header says of its bits is held against a compressed frame, which knows better:
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
        data += END_OF_FRAGMENTS  # or, where the file lacks it, pydicom would find no tag at all
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
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise _undecodable(syntax) from error
    if not decoder.is_available:
        raise _undecodable(syntax)
    if not isinstance(dataset.PixelData, bytes):
        raise damaged("its pixels are no bytes")
    if not syntax.is_encapsulated:
        _check_length(dataset)
        return
    try:
        num_offsets = len(parse_basic_offsets(dataset.PixelData))
        if num_offsets == 1:  # one frame is all there is, wherever its table says it begins
            dataset.PixelData = NO_OFFSETS + dataset.PixelData[len(NO_OFFSETS) + OFFSET_BYTES :]
        data = get_frame(dataset.PixelData, 0, number_of_frames=1)
        if syntax == RLELossless and are_runs_too_long(data, 2 * dataset.Rows * dataset.Columns):
            raise damaged("its runs are longer than its rows and columns allow")
    except PARSE_ERRORS as error:
        raise damaged("its compressed pixels are cut short, or no frame") from error
    if num_offsets > 1:
        raise unsupported(f"{num_offsets} frames, and a chest X-ray has one")
    if has_own_header(syntax):
        frame = read_frame(data, syntax)
        if frame is None:
            raise damaged("its compressed image has no header that can be read")
        _check_frame(dataset, frame)
        is_deep = frame.bits > GREY_BITS and (syntax == JPEGExtended12Bit or frame.samples > 1)
        if is_deep and decoder.available_plugins == ("pillow",):
            raise _undecodable(syntax, f" with {frame.bits} bits per sample")
        if syntax in PILLOW_SYNTAXES:
            _check_as_pillow_reads_it(data, frame)
        _follow_frame(dataset, frame)


def _check_length(dataset: Dataset) -> None:
    """Refuse pixels that are too few, or followed by more than zeros: their layout is another."""
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
    """Refuse a frame in which Pillow finds another size: it allocates what it finds."""
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
