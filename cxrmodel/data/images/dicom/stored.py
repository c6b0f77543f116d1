"""The value of each code that a pixel of a DICOM image can have, by its header and its pixels.

A header may give the wrong number of bits, or the wrong place for them: it is compared with what
the pixels themselves show.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from cxrmodel.data.images.dicom.header import OVERLAY_BITS
from cxrmodel.data.images.dicom.tags import PARSE_ERRORS, damaged, whole_number
from cxrmodel.data.images.grey import Counts, count_codes
from cxrmodel.errors import ImageError

MAX_BITS = 16
MAX_EDGE_SHARE, MAX_STEP_RATIO = 0.25, 2

Codes = NDArray[np.unsignedinteger]
Values = NDArray[np.int32]


class Stored(NamedTuple):
    """The pixels of an image as codes into tables of V entries, one per possible code.

    Attributes:
        codes: (H, W) unsigned.
        values: (V,) stored value of each code.
        counts: (V,) pixels of each code that are part of the image.
        is_padding: (V,) whether such a pixel lies outside the image.
    """

    codes: Codes
    values: Values
    counts: Counts
    is_padding: NDArray[np.bool_]


def read_stored(dataset: Dataset, pixels: NDArray[np.integer]) -> Stored:
    """Return the stored values of an image of one sample per pixel.

    Raises:
        ImageError: Its pixels have bits beyond those that the header says are stored.

    Source: DICOM PS3.5, section 8.1.1, and PS3.3, section C.7.5.1.1.2.
    """
    codes = pixels.astype(pixels.dtype.newbyteorder("="), copy=False).view(f"u{pixels.itemsize}")
    counts = count_codes(codes)
    allocated, bits = 8 * codes.itemsize, int(dataset.BitsStored)
    is_signed = dataset.PixelRepresentation == 1
    shift = _unused_bits_below(dataset, allocated, counts)
    shifted = np.arange(2**allocated, dtype=np.int32) >> shift
    values = _as_number(shifted, bits, is_signed)
    is_padding = _padding(dataset, values, allocated, is_signed)
    is_padding &= bool(counts[~is_padding].any())  # else the tag is wrong: no image is all padding
    counts[is_padding] = 0
    _check_sign_bit(dataset, shifted, values, counts)
    above = _without_overlays(dataset, shifted << shift) >> (bits + shift)
    is_sign_repeated = (values < 0) & (above == 2 ** (allocated - shift - bits) - 1)
    above[is_sign_repeated | is_padding] = 0
    if counts[above != 0].any() and not _is_drawn_over(values, above, codes):
        raise damaged(f"its pixels have more bits than the {bits} that are said to be stored")
    return Stored(codes, values, counts, is_padding)


def looks_signed(dataset: Dataset, pixels: NDArray[np.integer]) -> bool:
    """Tell by the pixels whether they are signed: read wrongly, they jump where grey is even."""
    bits = int(dataset.BitsStored)
    codes = pixels.astype(np.int32)
    jumps = [_variation(_as_number(codes, bits, is_signed)) for is_signed in (False, True)]
    return jumps[1] < jumps[0] or (jumps[1] == jumps[0] and dataset.PixelRepresentation == 1)


def _variation(values: Values) -> int:
    """Return the sum of all steps between neighbours."""
    return sum(int(np.abs(np.diff(values, axis=axis)).sum(dtype=np.int64)) for axis in (0, 1))


def _as_number(codes: Values, bits: int, is_signed: bool) -> Values:
    """Return the lower bits of codes, in two's complement where signed."""
    values: Values = codes & (2**bits - 1)
    if is_signed:
        values -= (values >> (bits - 1)) << bits
    return values


def _unused_bits_below(dataset: Dataset, allocated: int, counts: Counts) -> int:
    """Return by how many bits the stored ones lie above the lowest, as in old computed radiography.

    A HighBit that the pixels contradict, or that no pixel could have, is ignored.
    """
    bits, high = int(dataset.BitsStored), whole_number(dataset, "HighBit")
    if high is None or not bits - 1 < high < allocated:
        return 0
    shift = high + 1 - bits
    codes = np.flatnonzero(counts)
    is_at_the_bottom = codes[-1] < 2**bits and bool((codes & (2**shift - 1)).any())
    return 0 if is_at_the_bottom else shift


def _check_sign_bit(dataset: Dataset, codes: Values, values: Values, counts: Counts) -> None:
    """Refuse signed pixels whose sign lies in one bit by HighBit, and in another by BitsStored."""
    high = whole_number(dataset, "HighBit")
    if dataset.PixelRepresentation == 0 or high is None or not 0 <= high < dataset.BitsStored - 1:
        return
    if counts[_as_number(codes, high + 1, is_signed=True) != values].any():
        raise damaged(f"its HighBit is {high}, and its BitsStored {dataset.BitsStored}")


def _padding(
    dataset: Dataset, values: Values, allocated: int, is_signed: bool
) -> NDArray[np.bool_]:
    """Tell which codes fill the rectangle around the image rather than the image."""
    none = np.zeros(len(values), bool)
    try:
        first = whole_number(dataset, "PixelPaddingValue")
        last = whole_number(dataset, "PixelPaddingRangeLimit")
    except ImageError:  # optional tags: the image is usable without them
        return none
    if first is None:
        return none
    stated = (first, first if last is None else last)
    if not all(-(2 ** (allocated - 1)) <= end < 2**allocated for end in stated):
        return none
    # Either may be written with the other sign, or with all bits where the image uses fewer.
    low, high = sorted(_as_number(np.array(stated, np.int32), allocated, is_signed).tolist())
    wide = _as_number(np.arange(len(values), dtype=np.int32), allocated, is_signed)
    lies_in: NDArray[np.bool_] = ((low <= wide) & (wide <= high)) | (
        (low <= values) & (values <= high)
    )
    return lies_in


def _without_overlays(dataset: Dataset, codes: Values) -> Values:
    """Clear the bits in which the header places overlays."""
    for tag in OVERLAY_BITS:
        try:
            bit = dataset[tag].value if tag in dataset else None
        except PARSE_ERRORS:
            continue
        if isinstance(bit, int) and 0 < bit < MAX_BITS:
            codes = codes & ~(1 << bit)
    return codes


def _is_drawn_over(values: Values, above: Values, codes: Codes) -> bool:
    """Tell whether bits above the stored ones are a drawing over the image, not part of it.

    The edges of a drawing are few, and the image continues below them. Where bits that belong to
    the values change, the values without them jump.
    """
    stored, drawn = values[codes], above[codes]
    at_edges, elsewhere = np.zeros(2, np.int64), np.zeros(2, np.int64)  # sum and number of steps
    for axis in (0, 1):
        steps, is_edge = np.abs(np.diff(stored, axis=axis)), np.diff(drawn, axis=axis) != 0
        at_edges += _sum_and_number(steps[is_edge])
        elsewhere += _sum_and_number(steps[~is_edge])
    are_few = at_edges[1] <= MAX_EDGE_SHARE * (at_edges[1] + elsewhere[1])
    usual_step = max(elsewhere[0] / max(elsewhere[1], 1), 1)
    return bool(are_few and at_edges[0] <= MAX_STEP_RATIO * usual_step * at_edges[1])


def _sum_and_number(steps: Values) -> NDArray[np.int64]:
    return np.array((steps.sum(dtype=np.int64), len(steps)))
