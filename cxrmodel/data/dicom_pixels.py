"""From a DICOM file to 8-bit grey, by pydicom's own functions. Needs the extra `dicom`."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)

from cxrmodel.data.dicom_file import PARSE_ERRORS, transfer_syntax
from cxrmodel.data.image_header import check_size
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import ImageError

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
PALETTE = "PALETTE COLOR"
BITS_ALLOCATED = (1, 8, 16)
GREY_BITS, WHITE = 8, 255
PILLOW_SYNTAXES = (JPEGBaseline8Bit, JPEGExtended12Bit, *JPEG2000TransferSyntaxes)
TAGS = (
    *("Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PhotometricInterpretation", "PixelData"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *(f"{hue}PaletteColorLookupTableDescriptor" for hue in ("Red", "Green", "Blue")),
    *(f"{hue}PaletteColorLookupTableData" for hue in ("Red", "Green", "Blue")),
    *(f"Segmented{hue}PaletteColorLookupTableData" for hue in ("Red", "Green", "Blue")),
)


def decode_dicom(data: bytes, max_megapixels: float) -> NDArray[np.uint8]:
    """Decode the one film of a DICOM file to what a viewer would first show.

    Stored values go through the modality LUT or rescale, then the first VOI LUT, else the first
    window. The whole output range of that becomes 0 to 255. With neither, 8-bit values stay as
    they are, and others are spread from the least to the greatest of this film. MONOCHROME1 is
    inverted, so that air is dark in every film. Colour becomes luminance.

    Args:
        data: The whole file.
        max_megapixels: The largest size to decode.

    Returns:
        (H, W) uint8, black 0.

    Raises:
        ImageError: The file is damaged, too large, holds no single film, or is compressed in a
            way that no installed decoder reads.

    Source: DICOM PS3.3, sections C.7.6.3.1.2, C.11.1 and C.11.2.
    """
    try:
        film = _read(data, max_megapixels)
        return _to_grey(film, pixel_array(film))
    except (*PARSE_ERRORS, Image.DecompressionBombError) as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(Reason.DAMAGED_IMAGE, detail) from error


def _read(data: bytes, max_megapixels: float) -> Dataset:
    """Return the tags that matter, the pixels still encoded, once all is seen to be sound."""
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
    _check_kind(film)
    _check_encoding(film, syntax)
    return film


def _check_kind(film: Dataset) -> None:
    num_frames = int(film.get("NumberOfFrames") or 1)
    bits, kind = film.BitsAllocated, str(film.PhotometricInterpretation)
    if num_frames != 1:
        unsupported = f"{num_frames} frames, and a film has one"
    elif bits not in BITS_ALLOCATED:
        unsupported = f"{bits} bits a sample"
    elif kind not in (*MONOCHROME, *COLOUR, PALETTE):
        unsupported = f"photometric interpretation {kind!r}"
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
    if syntax in PILLOW_SYNTAXES:  # a frame of another size would be decoded before it is refused
        frame = get_frame(film.PixelData, 0, number_of_frames=1)
        with Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
            if image.size != (film.Columns, film.Rows):
                raise ValueError(f"its compressed image is of {image.size}, not as its header says")


def _undecodable(syntax: UID) -> ImageError:
    return ImageError(Reason.UNSUPPORTED_IMAGE, f"no decoder for the transfer syntax {syntax.name}")


def _to_grey(film: Dataset, pixels: NDArray[np.integer]) -> NDArray[np.uint8]:
    kind = film.PhotometricInterpretation
    if kind in MONOCHROME:
        grey = _look_up(film, pixels)
        return WHITE - grey if kind == "MONOCHROME1" else grey
    bits = film.BitsStored
    if kind == PALETTE:
        pixels = apply_color_lut(pixels, film)
        bits = 8 * pixels.itemsize
    colour = pixels >> max(bits - GREY_BITS, 0)
    return np.asarray(Image.fromarray(colour.astype(np.uint8)).convert("L"))


def _look_up(film: Dataset, pixels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Map stored values to grey through a table of every code that such a pixel can have.

    Exact, with a fraction of the work and room of mapping each pixel in floating point.
    """
    codes = pixels.astype(pixels.dtype.newbyteorder("="), copy=False).view(f"u{pixels.itemsize}")
    shown, black, white = _displayed(film, _stored_values(film, codes), codes)
    with np.errstate(all="ignore"):  # what these warn of is refused below
        grey = np.rint((shown - black) / (white - black) * WHITE)
    if not np.isfinite(grey).all():
        raise ValueError("its rescale and window leave no range of grey")
    table: NDArray[np.uint8] = grey.clip(0, WHITE).astype(np.uint8)
    grey_of_pixels: NDArray[np.uint8] = table[codes]
    return grey_of_pixels


def _stored_values(film: Dataset, codes: NDArray[np.unsignedinteger]) -> NDArray[np.int32]:
    """Return the value of each code: its lower BitsStored bits; those above may hold overlays."""
    bits = film.BitsStored
    values: NDArray[np.int32] = np.arange(2 ** (8 * codes.itemsize), dtype=np.int32)
    values &= 2**bits - 1
    if film.PixelRepresentation == 1:  # two's complement
        values -= (values >> (bits - 1)) << bits
    return values


def _displayed(
    film: Dataset, stored: NDArray[np.int32], codes: NDArray[np.unsignedinteger]
) -> tuple[NDArray[np.float64], float, float]:
    """Return what each stored value is shown as, and which of these is black and which white."""
    values = apply_modality_lut(stored, film).astype(np.float64)
    if film.get("VOILUTSequence"):
        return _through_first_lut(film, values)
    if None not in (film.get("WindowCenter"), film.get("WindowWidth")):
        black, white = apply_voi_lut(np.array([-np.inf, np.inf]), film)
        return apply_voi_lut(values, film), black, white
    ends = np.array(_stored_ends(film, stored, codes), np.int32)
    black, white = sorted(apply_modality_lut(ends, film).astype(np.float64))
    return values, black, white


def _stored_ends(
    film: Dataset, stored: NDArray[np.int32], codes: NDArray[np.unsignedinteger]
) -> tuple[int, int]:
    if film.BitsStored == GREY_BITS and film.PixelRepresentation == 0:
        return 0, WHITE
    present = stored[codes]
    least, greatest = int(present.min()), int(present.max())
    return least, max(greatest, least + 1)  # a blank film is black


def _through_first_lut(
    film: Dataset, values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float, float]:
    lut = film.VOILUTSequence[0]
    num_entries, first, bits = lut.LUTDescriptor
    last = first + (num_entries or 2**16) - 1
    # pydicom looks up in the type of the LUT's entries: 8-bit ones would wrap after 256 of them.
    lut.LUTDescriptor = [num_entries, first, max(bits, 16)]
    within = np.rint(values).clip(first, last).astype(np.int32)
    return apply_voi_lut(within, film).astype(np.float64), 0, 2**bits - 1
