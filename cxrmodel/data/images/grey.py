"""Grey levels: how deep values are spread over 8 bits, and whether an image has contrast."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxrmodel.data.ledger import Reason
from cxrmodel.errors import ImageError

METHOD = "grey-1"
"""Name of how the pixels of a PNG, JPEG or DICOM file become grey levels.

Give it another number with any change after which a file gets other levels: bundles made before are
then refused, and do not score other images than they were trained on.
"""

BLACK, WHITE = 0, 255
MIN_LEVELS = 32
MIN_SHARE_BETWEEN = 0.02
MIN_RANGE = 16
BLOCK_PIXELS = 1 << 20
OUTLIERS = 100  # one in 100 values, at each end
OUTLIER_SHARE = 0.001  # of the pixels, at each end: from the 0.1th to the 99.9th percentile

Counts = NDArray[np.int64]
Table = NDArray[np.uint8]


def count_codes(codes: NDArray[np.unsignedinteger]) -> Counts:
    """Return how often each code of the type occurs, (256,) or (65536,)."""
    counts = np.zeros(2 ** (8 * codes.itemsize), np.int64)
    flat = codes.reshape(-1)
    for start in range(0, len(flat), BLOCK_PIXELS):  # bincount takes 8 bytes per pixel
        counts += np.bincount(flat[start : start + BLOCK_PIXELS], minlength=len(counts))
    return counts


def spread(values: NDArray[np.float64], counts: Counts) -> Table:
    """Return the grey of each code, from black at the least value to white at the greatest.

    Where a few far values (a border of 65535, a dead pixel) would leave too few levels to the
    rest, the least 1 % and the greatest 1 % of the values are left out, each value counted once
    however many pixels have it.

    Args:
        values: (V,) value of each code.
        counts: (V,) pixels of each code.

    Raises:
        ValueError: The values leave no finite range.
    """
    present = np.sort(values[counts > 0])
    black, white = present[0], present[-1]
    grey = scaled(values, black, white if white > black else black + 1)  # one value: black
    if grey is None:
        raise ValueError("no finite range")
    if not shows(grey, counts):
        num_outliers = -(-len(present) // OUTLIERS)
        inner = present[num_outliers : len(present) - num_outliers]
        within = scaled(values, inner[0], inner[-1]) if len(inner) else None
        if within is not None and shows(within, counts):
            return within
    return grey


def spread_most(values: NDArray[np.float64], counts: Counts) -> Table:
    """Return the grey of each code, from black to white over 99.8 % of the pixels.

    Black is the 0.1th percentile of the pixels, white the 99.9th: a few hot or dead pixels then
    cost the others no grey levels. Where this range does not show the image, it is spread over all
    its values: see `spread`.

    Args:
        values: (V,) value of each code, in ascending order.
        counts: (V,) pixels of each code.

    Raises:
        ValueError: The values leave no finite range.
    """
    up_to = np.cumsum(counts)
    ends = up_to[-1] * np.array([OUTLIER_SHARE, 1 - OUTLIER_SHARE])
    black, white = values[np.searchsorted(up_to, ends)]
    grey = scaled(values, black, white) if white > black else None
    return grey if grey is not None and shows(grey, counts) else spread(values, counts)


def scaled(values: NDArray[np.float64], black: float, white: float) -> Table | None:
    """Return values from black to white as 0 to 255; None where the range is not finite."""
    with np.errstate(all="ignore"):
        grey = np.rint((values - black) / (white - black) * WHITE)
    return grey.clip(BLACK, WHITE).astype(np.uint8) if np.isfinite(grey).all() else None


def shows(table: Table, counts: Counts) -> bool:
    """Tell whether a table from codes to grey keeps the contrast of the codes.

    It does not where it makes fewer than 32 levels out of at least twice as many codes, or where
    it makes nearly all pixels black or white.
    """
    present = counts > 0
    num_codes, num_levels = int(np.count_nonzero(present)), len(np.unique(table[present]))
    if num_levels < MIN_LEVELS and num_codes >= 2 * num_levels:
        return False
    between = counts[(table > BLACK) & (table < WHITE)].sum()
    return num_codes <= num_levels or bool(between >= MIN_SHARE_BETWEEN * counts.sum())


def used_levels(counts: Counts) -> int:
    """Return how many grey levels 98 % of the pixels lie within, by the pixels of each level."""
    up_to = np.cumsum(counts)
    darkest, brightest = np.searchsorted(up_to, (0.01 * up_to[-1], 0.99 * up_to[-1]))
    return int(brightest - darkest) + 1


def check_contrast(num_levels: int) -> None:
    """Refuse an image of one grey, or nearly.

    Raises:
        ImageError: 98 % of its pixels lie within too few grey levels.
    """
    if num_levels <= MIN_RANGE:
        raise ImageError(
            Reason.LOW_CONTRAST, f"98 % of its pixels lie within {num_levels} of 256 grey levels"
        )
