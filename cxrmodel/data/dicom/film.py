"""The tags of a DICOM film, with all that can be told before its pixels are decoded.

Importing this needs the extra `dicom`.
"""

from __future__ import annotations

import io
import struct
from itertools import pairwise

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)

from cxrmodel.data.dicom.file import transfer_syntax
from cxrmodel.data.image_header import check_size
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import ImageError

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
PALETTE = "PALETTE COLOR"
MAX_KIND_CHARS = 16
BITS_ALLOCATED = (1, 8, 16)
GREY_BITS = 8
PILLOW_SYNTAXES = (JPEGBaseline8Bit, JPEGExtended12Bit, *JPEG2000TransferSyntaxes)
REQUIRED = (
    *("BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("SamplesPerPixel", "PhotometricInterpretation"),
)
NUMBERS = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
NO_RUN = 128  # as a control byte: below it, bytes as they are; above it, one byte repeated
TAGS = (
    *REQUIRED,
    *("Rows", "Columns", "PlanarConfiguration", "NumberOfFrames", "PixelData"),
    *NUMBERS,
    *("ModalityLUTSequence", "VOILUTFunction", "VOILUTSequence"),
    *(f"{hue}PaletteColorLookupTableDescriptor" for hue in ("Red", "Green", "Blue")),
    *(f"{hue}PaletteColorLookupTableData" for hue in ("Red", "Green", "Blue")),
    *(f"Segmented{hue}PaletteColorLookupTableData" for hue in ("Red", "Green", "Blue")),
)


def read_film(data: bytes, max_megapixels: float) -> Dataset:
    """Return the tags that matter to the pixels, which are still encoded.

    Raises:
        ImageError: The film is too large, is none, or nothing here decodes it.
        PARSE_ERRORS: The file is damaged.
    """
    syntax = transfer_syntax(data)
    if syntax is None:
        raise ImageError(Reason.DAMAGED_IMAGE, "it names no transfer syntax")
    if syntax == DeflatedExplicitVRLittleEndian:
        raise _undecodable(syntax)
    film = dcmread(io.BytesIO(data), specific_tags=list(TAGS))
    if "Rows" not in film or "Columns" not in film:
        raise ImageError(Reason.UNSUPPORTED_IMAGE, "it holds no image")
    height, width = int(film.Rows), int(film.Columns)
    check_size(width, height, max_megapixels)
    if min(width, height) < 1:
        raise ImageError(Reason.DAMAGED_IMAGE, f"{width} x {height} pixels")
    if not film.get("PixelData"):
        raise ImageError(Reason.DAMAGED_IMAGE, "it ends before its pixels")
    _check_tags(film)
    _check_kind(film)
    _check_encoding(film, syntax)
    return film


def _check_tags(film: Dataset) -> None:
    missing = [tag for tag in REQUIRED if film.get(tag) is None]
    if missing:
        raise ImageError(Reason.DAMAGED_IMAGE, f"it lacks {', '.join(missing)}")
    for tag in NUMBERS:
        try:
            np.asarray(film.get(tag) or 0, np.float64)
        except ValueError as error:
            raise ImageError(Reason.DAMAGED_IMAGE, f"its {tag} is not a number") from error


def _check_kind(film: Dataset) -> None:
    num_frames = int(film.get("NumberOfFrames") or 1)
    bits, kind = film.BitsAllocated, str(film.PhotometricInterpretation)
    if num_frames != 1:
        unsupported = f"{num_frames} frames, and a film has one"
    elif bits not in BITS_ALLOCATED:
        unsupported = f"{bits} bits a sample"
    elif kind not in (*MONOCHROME, *COLOUR, PALETTE):
        unsupported = f"photometric interpretation {kind[:MAX_KIND_CHARS]!r}"
    else:
        return
    raise ImageError(Reason.UNSUPPORTED_IMAGE, unsupported)


def _check_encoding(film: Dataset, syntax: UID) -> None:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise _undecodable(syntax) from error
    is_12_bit = syntax == JPEGExtended12Bit and film.BitsStored > GREY_BITS
    if not decoder.is_available or (is_12_bit and decoder.available_plugins == ("pillow",)):
        raise _undecodable(syntax)
    if syntax.is_encapsulated:
        _check_frame(film, syntax, get_frame(film.PixelData, 0, number_of_frames=1))


def _check_frame(film: Dataset, syntax: UID, frame: bytes) -> None:
    """Refuse a frame that is larger than the header says, which decoders notice too late."""
    if syntax == RLELossless:
        num_segments, *starts = struct.unpack_from("<16L", frame)
        for start, end in pairwise([*starts[:num_segments], len(frame)]):
            _check_runs(frame[start:end], 2 * film.Rows * film.Columns)
    elif syntax in PILLOW_SYNTAXES:
        with Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
            if image.size != (film.Columns, film.Rows):
                raise ValueError(f"its compressed image is of {image.size}, not as its header says")


def _check_runs(segment: bytes, most: int) -> None:
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
    if total > most:
        raise ValueError("its runs are longer than its rows and columns allow")


def _undecodable(syntax: UID) -> ImageError:
    return ImageError(Reason.UNSUPPORTED_IMAGE, f"no decoder for the transfer syntax {syntax.name}")
