"""From the stored values of a DICOM film to what a viewer would first show, by pydicom's functions.

The tags that say how are optional. One that is odd costs what it says, and not the image: the next
of its kind is used, and in the end the range of the values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing

from cxrmodel.data.images.dicom.file import PARSE_ERRORS
from cxrmodel.data.images.dicom.header import GREY_BITS, damaged, real_numbers, text
from cxrmodel.data.images.dicom.stored import Stored
from cxrmodel.data.images.grey import BLACK, WHITE, Table, scaled, shows, spread

LINEAR, FUNCTIONS = "LINEAR", ("LINEAR", "LINEAR_EXACT", "SIGMOID")
LUT_BITS = range(8, 17)
NO_RANGE = "its rescale leaves no range of grey"

Displayed = NDArray[np.float64]


def grey_table(film: Dataset, stored: Stored) -> Table:
    """Return the grey of each code, (V,): air dark in every film, and padding black.

    Raises:
        ImageError: The rescale or the modality LUT, without which no window can be used, is none.
    """
    values = _through_modality(film, stored.values)
    shown = (table for table in _stated(film, values) if shows(table, stored.counts))
    table = next(shown, None)
    if table is None:
        try:
            table = spread(values, stored.counts)
        except ValueError as error:
            raise damaged(NO_RANGE) from error
    is_inverse = text(film, "PresentationLUTShape") == "INVERSE"
    if is_inverse or film.PhotometricInterpretation == "MONOCHROME1":
        table = WHITE - table
    return np.where(stored.is_padding, np.uint8(BLACK), table)


def _through_modality(film: Dataset, stored: NDArray[np.int32]) -> Displayed:
    if "ModalityLUTSequence" in film and not _is_blank_lut(film, "ModalityLUTSequence"):
        try:
            return apply_modality_lut(stored, film).astype(np.float64)
        except PARSE_ERRORS as error:
            raise damaged("its ModalityLUTSequence cannot be applied") from error
    film.pop("ModalityLUTSequence", None)
    slope, intercept = _rescale(film, "RescaleSlope"), _rescale(film, "RescaleIntercept")
    if slope == 0:
        raise damaged("its RescaleSlope is 0")
    if slope is None and intercept is None:
        film.pop("RescaleSlope", None)
        film.pop("RescaleIntercept", None)
        return stored.astype(np.float64)
    _set_number(film, "RescaleSlope", 1.0 if slope is None else slope)
    _set_number(film, "RescaleIntercept", intercept or 0.0)
    with np.errstate(all="ignore"):
        values: Displayed = apply_modality_lut(stored, film)
    if not np.isfinite(values).all():
        raise damaged(NO_RANGE)
    return values


def _rescale(film: Dataset, keyword: str) -> float | None:
    numbers = real_numbers(film, keyword)
    if numbers and not math.isfinite(numbers[0]):
        raise damaged(f"its {keyword} is not a number")
    return numbers[0] if numbers else None


def _is_blank_lut(film: Dataset, keyword: str) -> bool:
    """Tell whether a sequence has no LUT in it: some devices write empty ones."""
    try:
        items = film.get(keyword) or []
        return not any(item.get("LUTDescriptor") for item in items)
    except PARSE_ERRORS:
        return False


def _stated(film: Dataset, values: Displayed) -> Iterator[Table]:
    """Yield the grey of each value by each VOI LUT, each window, and the range of 8-bit films."""
    for number in range(_num_luts(film)):
        yield from _through_lut(film, number, values)
    windows = zip(
        real_numbers(film, "WindowCenter"), real_numbers(film, "WindowWidth"), strict=False
    )
    for centre, width in windows:
        yield from _windowed(film, centre, width, values)
    if film.BitsStored == GREY_BITS and film.PixelRepresentation == 0:
        black, white = sorted((values[0], values[2**GREY_BITS - 1]))
        whole = scaled(values, black, white)
        yield from () if whole is None else (whole,)


def _num_luts(film: Dataset) -> int:
    try:
        return len(film.get("VOILUTSequence") or ())
    except PARSE_ERRORS:
        return 0


def _through_lut(film: Dataset, number: int, values: Displayed) -> Iterator[Table]:
    try:
        lut = film.VOILUTSequence[number]
        num_entries, first, bits = lut.LUTDescriptor
        if bits not in LUT_BITS:
            return
        length = num_entries or 2**16
        last = first + length - 1
        if isinstance(lut.LUTData, bytes) and len(lut.LUTData) == length + length % 2:
            lut.add_new("LUTData", "US", list(lut.LUTData[:length]))  # a byte each, packed
        # pydicom looks up in the type of the entries: 8-bit ones would wrap after 256 of them.
        lut.LUTDescriptor = [num_entries, first, max(bits, 16)]
        within = np.rint(values).clip(first, last).astype(np.int32)
        table = scaled(apply_voi(within, film, number).astype(np.float64), 0, 2**bits - 1)
    except PARSE_ERRORS:
        return
    yield from () if table is None else (table,)


def _windowed(film: Dataset, centre: float, width: float, values: Displayed) -> Iterator[Table]:
    function = text(film, "VOILUTFunction") or LINEAR
    if function not in FUNCTIONS or not (math.isfinite(centre) and math.isfinite(width)):
        return
    if width <= 0 or (function == LINEAR and width < 1):
        return
    film.add_new("VOILUTFunction", "CS", function)
    _set_number(film, "WindowCenter", centre)
    _set_number(film, "WindowWidth", width)
    with np.errstate(all="ignore"):  # what numpy would warn of is not finite, and no table
        black, white = apply_windowing(np.array([-np.inf, np.inf]), film)
        table = scaled(apply_windowing(values, film), black, white)
    yield from () if table is None else (table,)


def _set_number(film: Dataset, keyword: str, number: float) -> None:
    film[keyword] = DataElement(keyword, "DS", number, validation_mode=IGNORE)
