"""From a DICOM file to 8-bit grey. Needs the extra `dicom`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array

from cxrmodel.data.images.dicom.display import grey_table
from cxrmodel.data.images.dicom.file import PARSE_ERRORS
from cxrmodel.data.images.dicom.header import GREY_BITS, MONOCHROME, PALETTE, damaged, read_film
from cxrmodel.data.images.dicom.stored import looks_signed, read_stored
from cxrmodel.data.images.grey import check_contrast, used_levels

MAX_SAMPLE_BYTES = 2


def decode_dicom(data: bytes, max_megapixels: float) -> NDArray[np.uint8]:
    """Decode the one film of a DICOM file to what a viewer would first show.

    Stored values go through the modality LUT or rescale, then the first VOI LUT that shows them,
    else the first such window. The whole output range of that becomes 0 to 255. With neither,
    8-bit values stay as they are, and others are spread from the least to the greatest of this
    film. MONOCHROME1 or an inverse presentation LUT is inverted, so that air is dark in every
    film. Padding is black and takes no part in the range. Colour becomes luminance.

    Args:
        data: The whole file.
        max_megapixels: The largest size to decode.

    Returns:
        (H, W) uint8, black 0.

    Raises:
        ImageError: The file is damaged, too large, holds no single film, shows nothing, or is
            compressed in a way that no installed decoder reads.

    Source: DICOM PS3.3, sections C.7.6.3.1.2, C.7.5.1.1.2, C.11.1, C.11.2 and C.11.6.
    """
    film, is_sign_disputed = read_film(data, max_megapixels)
    pixels = _decoded(film)
    if film.PhotometricInterpretation in MONOCHROME:
        if is_sign_disputed:
            film.PixelRepresentation = int(looks_signed(film, pixels))
        grey = _monochrome(film, pixels)
    else:
        grey = _luminance(film, pixels)
    _require(grey, (film.Rows, film.Columns), "u", 1)
    return grey


def _decoded(film: Dataset) -> NDArray[np.integer]:
    """Decode the pixels, with all their bits: those that are not stored may tell of a wrong header.

    Raises:
        ImageError: They cannot be decoded, or come out in another shape than the header says.
    """
    try:
        # More frames than stated would come with them, and make another shape.
        pixels = pixel_array(film, allow_excess_frames=False, correct_unused_bits=False)
    except PARSE_ERRORS as error:
        raise damaged("its pixels cannot be decoded as its header says") from error
    except Image.DecompressionBombError as error:
        raise damaged("its compressed pixels are of another size than its header says") from error
    samples = () if film.SamplesPerPixel == 1 else (film.SamplesPerPixel,)
    _require(pixels, (film.Rows, film.Columns, *samples), "ui", MAX_SAMPLE_BYTES)
    return pixels


def _require(
    pixels: NDArray[np.integer], shape: tuple[int, ...], kinds: str, most_bytes: int
) -> None:
    """Hold a decoder's result against what it promises."""
    dtype = pixels.dtype
    if pixels.shape != shape or dtype.kind not in kinds or dtype.itemsize > most_bytes:
        raise damaged(f"its pixels decode to {dtype} of shape {pixels.shape}, and not to {shape}")


def _monochrome(film: Dataset, pixels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Map stored values to grey through a table of every code that such a pixel can have.

    Exact, with a fraction of the work and room of mapping each pixel in floating point.
    """
    stored = read_stored(film, pixels)
    table = grey_table(film, stored)
    if stored.is_padding.any():  # which would count as contrast of the whole
        check_contrast(used_levels(np.bincount(table, stored.counts).astype(np.int64)))
    grey: NDArray[np.uint8] = table[stored.codes]
    return grey


def _luminance(film: Dataset, pixels: NDArray[np.integer]) -> NDArray[np.uint8]:
    bits = film.BitsStored
    if film.PhotometricInterpretation == PALETTE:
        stored = read_stored(film, pixels)
        try:
            pixels = apply_color_lut(stored.values[stored.codes], film)
        except PARSE_ERRORS as error:
            raise damaged("its palette cannot be applied") from error
        bits = 8 * pixels.itemsize
    if pixels.min() < 0 or pixels.max() >= 2**bits:
        raise damaged(f"its colours have more bits than the {bits} that are said to be stored")
    _require(pixels, (film.Rows, film.Columns, 3), "ui", MAX_SAMPLE_BYTES)
    colour = pixels >> max(bits - GREY_BITS, 0)
    return np.asarray(Image.fromarray(colour.astype(np.uint8)).convert("L"))
