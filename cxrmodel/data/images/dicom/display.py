"""From a DICOM file to 8-bit grey, as a viewer would first show it. Needs the extra `dicom`.

The tags that say how to show it are optional. An odd one does not cost the image: the next of its
kind is used, and in the end the range of the values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.pixels.processing import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi,
    apply_windowing,
)
from pydicom.pixels.utils import pixel_array

from cxrmodel.data.images.dicom.header import (
    GREY_BITS,
    MONOCHROME,
    PALETTE,
    plugin_for,
    read_header,
)
from cxrmodel.data.images.dicom.stored import Stored, looks_signed, read_stored
from cxrmodel.data.images.dicom.tags import PARSE_ERRORS, damaged, real_numbers, text
from cxrmodel.data.images.grey import (
    BLACK,
    WHITE,
    Table,
    check_contrast,
    scaled,
    shows,
    spread,
    used_levels,
)

MAX_SAMPLE_BYTES = 2


def decode_dicom(data: bytes, max_megapixels: float) -> NDArray[np.uint8]:
    """Decode the one image of a DICOM file to what a viewer would first show.

    Stored values go through the modality LUT or rescale, then the first VOI LUT that shows them,
    else the first such window. The whole output range of that becomes 0 to 255. With neither,
    8-bit values stay as they are, and others are spread from the least to the greatest of this
    image. MONOCHROME1 or an inverse presentation LUT is inverted, so that air is dark in every
    image. Padding is black and takes no part in the range. Colour becomes luminance.

    Args:
        data: The whole file.
        max_megapixels: The largest size to decode.

    Returns:
        (H, W) uint8, black 0.

    Raises:
        ImageError: The file is damaged, too large, holds no single image, shows nothing, or is
            compressed in a way that no installed decoder reads.

    Source: DICOM PS3.3, sections C.7.6.3.1.2, C.7.5.1.1.2, C.11.1, C.11.2 and C.11.6.
    """
    dataset, is_sign_disputed = read_header(data, max_megapixels)
    pixels = _decoded(dataset)
    if dataset.PhotometricInterpretation in MONOCHROME:
        if is_sign_disputed:
            dataset.PixelRepresentation = int(looks_signed(dataset, pixels))
        grey = _monochrome(dataset, pixels)
    else:
        grey = _luminance(dataset, pixels)
    _require(grey, (dataset.Rows, dataset.Columns), "u", 1)
    return grey


def _decoded(dataset: Dataset) -> NDArray[np.integer]:
    """Decode the pixels with all their bits: those that are not stored may reveal a wrong header.

    Raises:
        ImageError: They cannot be decoded, or come out in another shape than the header says.
    """
    try:
        # Frames in excess of those stated would change the shape.
        pixels = pixel_array(
            dataset,
            decoding_plugin=plugin_for(dataset),
            allow_excess_frames=False,
            correct_unused_bits=False,
        )
    except PARSE_ERRORS as error:
        raise damaged("its pixels cannot be decoded as its header says") from error
    except Image.DecompressionBombError as error:
        raise damaged("its compressed pixels are of another size than its header says") from error
    samples = () if dataset.SamplesPerPixel == 1 else (dataset.SamplesPerPixel,)
    _require(pixels, (dataset.Rows, dataset.Columns, *samples), "ui", MAX_SAMPLE_BYTES)
    return pixels


def _require(
    pixels: NDArray[np.integer], shape: tuple[int, ...], kinds: str, most_bytes: int
) -> None:
    """Check a decoder's result against what the header promises."""
    dtype = pixels.dtype
    if pixels.shape != shape or dtype.kind not in kinds or dtype.itemsize > most_bytes:
        raise damaged(f"its pixels decode to {dtype} of shape {pixels.shape}, and not to {shape}")


def _monochrome(dataset: Dataset, pixels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Map stored values to grey through a table of every code that such a pixel can have.

    Exact, with a fraction of the time and memory of mapping each pixel in floating point.
    """
    stored = read_stored(dataset, pixels)
    table = grey_table(dataset, stored)
    if stored.is_padding.any():  # padding would count as contrast of the image
        check_contrast(used_levels(np.bincount(table, stored.counts).astype(np.int64)))
    grey: NDArray[np.uint8] = table[stored.codes]
    return grey


def _luminance(dataset: Dataset, pixels: NDArray[np.integer]) -> NDArray[np.uint8]:
    bits = dataset.BitsStored
    if dataset.PhotometricInterpretation == PALETTE:
        stored = read_stored(dataset, pixels)
        try:
            pixels = apply_color_lut(stored.values[stored.codes], dataset)
        except PARSE_ERRORS as error:
            raise damaged("its palette cannot be applied") from error
        bits = 8 * pixels.itemsize
    if pixels.min() < 0 or pixels.max() >= 2**bits:
        raise damaged(f"its colours have more bits than the {bits} that are said to be stored")
    _require(pixels, (dataset.Rows, dataset.Columns, 3), "ui", MAX_SAMPLE_BYTES)
    colour = pixels >> max(bits - GREY_BITS, 0)
    return np.asarray(Image.fromarray(colour.astype(np.uint8)).convert("L"))


LINEAR, FUNCTIONS = "LINEAR", ("LINEAR", "LINEAR_EXACT", "SIGMOID")
LUT_BITS = range(8, 17)
NO_RANGE = "its rescale leaves no range of grey"

Displayed = NDArray[np.float64]


def grey_table(dataset: Dataset, stored: Stored) -> Table:
    """Return the grey of each code, (V,), with air dark and padding black.

    Raises:
        ImageError: The rescale or the modality LUT, without which no window fits, is broken.
    """
    values = _through_modality(dataset, stored.values)
    shown = (table for table in _stated(dataset, values) if shows(table, stored.counts))
    table = next(shown, None)
    if table is None:
        try:
            table = spread(values, stored.counts)
        except ValueError as error:
            raise damaged(NO_RANGE) from error
    is_inverse = text(dataset, "PresentationLUTShape") == "INVERSE"
    if is_inverse or dataset.PhotometricInterpretation == "MONOCHROME1":
        table = WHITE - table
    return np.where(stored.is_padding, np.uint8(BLACK), table)


def _through_modality(dataset: Dataset, stored: NDArray[np.int32]) -> Displayed:
    if "ModalityLUTSequence" in dataset and not _is_blank_lut(dataset, "ModalityLUTSequence"):
        try:
            return apply_modality_lut(stored, dataset).astype(np.float64)
        except PARSE_ERRORS as error:
            raise damaged("its ModalityLUTSequence cannot be applied") from error
    dataset.pop("ModalityLUTSequence", None)
    slope, intercept = _rescale(dataset, "RescaleSlope"), _rescale(dataset, "RescaleIntercept")
    if slope == 0:
        raise damaged("its RescaleSlope is 0")
    if slope is None and intercept is None:
        dataset.pop("RescaleSlope", None)
        dataset.pop("RescaleIntercept", None)
        return stored.astype(np.float64)
    _set_number(dataset, "RescaleSlope", 1.0 if slope is None else slope)
    _set_number(dataset, "RescaleIntercept", intercept or 0.0)
    with np.errstate(all="ignore"):
        values: Displayed = apply_modality_lut(stored, dataset)
    if not np.isfinite(values).all():
        raise damaged(NO_RANGE)
    return values


def _rescale(dataset: Dataset, keyword: str) -> float | None:
    numbers = real_numbers(dataset, keyword)
    if numbers and not math.isfinite(numbers[0]):
        raise damaged(f"its {keyword} is not a number")
    return numbers[0] if numbers else None


def _is_blank_lut(dataset: Dataset, keyword: str) -> bool:
    """Tell whether a sequence holds no LUT: some devices write empty ones."""
    try:
        items = dataset.get(keyword) or []
        return not any(item.get("LUTDescriptor") for item in items)
    except PARSE_ERRORS:
        return False


def _stated(dataset: Dataset, values: Displayed) -> Iterator[Table]:
    """Yield the grey of each value by each VOI LUT, each window, and the range of 8-bit images."""
    for number in range(_num_luts(dataset)):
        yield from _through_lut(dataset, number, values)
    windows = zip(
        real_numbers(dataset, "WindowCenter"), real_numbers(dataset, "WindowWidth"), strict=False
    )
    for centre, width in windows:
        yield from _windowed(dataset, centre, width, values)
    if dataset.BitsStored == GREY_BITS and dataset.PixelRepresentation == 0:
        black, white = sorted((values[0], values[2**GREY_BITS - 1]))
        whole = scaled(values, black, white)
        yield from () if whole is None else (whole,)


def _num_luts(dataset: Dataset) -> int:
    try:
        return len(dataset.get("VOILUTSequence") or ())
    except PARSE_ERRORS:
        return 0


def _through_lut(dataset: Dataset, number: int, values: Displayed) -> Iterator[Table]:
    try:
        lut = dataset.VOILUTSequence[number]
        num_entries, first, bits = lut.LUTDescriptor
        if bits not in LUT_BITS:
            return
        length = num_entries or 2**16
        last = first + length - 1
        if isinstance(lut.LUTData, bytes) and len(lut.LUTData) == length + length % 2:
            lut.add_new("LUTData", "US", list(lut.LUTData[:length]))  # packed, one byte each
        # pydicom indexes in the type of the entries: 8-bit ones would wrap after 256.
        lut.LUTDescriptor = [num_entries, first, max(bits, 16)]
        within = np.rint(values).clip(first, last).astype(np.int32)
        table = scaled(apply_voi(within, dataset, number).astype(np.float64), 0, 2**bits - 1)
    except PARSE_ERRORS:
        return
    yield from () if table is None else (table,)


def _windowed(dataset: Dataset, centre: float, width: float, values: Displayed) -> Iterator[Table]:
    function = text(dataset, "VOILUTFunction") or LINEAR
    if function not in FUNCTIONS or not (math.isfinite(centre) and math.isfinite(width)):
        return
    if width <= 0 or (function == LINEAR and width < 1):
        return
    dataset.add_new("VOILUTFunction", "CS", function)
    _set_number(dataset, "WindowCenter", centre)
    _set_number(dataset, "WindowWidth", width)
    with np.errstate(all="ignore"):  # what numpy warns of is refused
        black, white = apply_windowing(np.array([-np.inf, np.inf]), dataset)
        table = scaled(apply_windowing(values, dataset), black, white)
    yield from () if table is None else (table,)


def _set_number(dataset: Dataset, keyword: str, number: float) -> None:
    dataset[keyword] = DataElement(keyword, "DS", number, validation_mode=IGNORE)
