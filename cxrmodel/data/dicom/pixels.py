"""From a DICOM file to 8-bit grey, by pydicom's own functions. Needs the extra `dicom`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from cxrmodel.data.dicom.file import PARSE_ERRORS, explain
from cxrmodel.data.dicom.film import GREY_BITS, MONOCHROME, PALETTE, read_film
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import ImageError

WHITE = 255


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
        film = read_film(data, max_megapixels)
        return _to_grey(film, pixel_array(film))
    except (*PARSE_ERRORS, Image.DecompressionBombError) as error:
        raise ImageError(Reason.DAMAGED_IMAGE, explain(error)) from error


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
    with np.errstate(all="ignore"):  # what numpy would warn of is refused below
        shown, black, white = _displayed(film, _stored_values(film, codes), codes)
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
