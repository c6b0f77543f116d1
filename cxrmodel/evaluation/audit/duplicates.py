"""The same image in two parts of the split, equal or nearly equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.evaluation.perceptual_hash import nearest_within
from cxrmodel.evaluation.resolution import shrink, to_unit

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

# Of 512; brighter or noisier copies differ by 0 to 6 at the median, other images by 68.
NEAR_BITS = 24
NEAR_CORRELATION = 0.99
COMPARED_PX = 64
MAX_CANDIDATES = 500  # near pairs whose pixels are compared
NOT_TEST = ("train", "val")


@dataclass(frozen=True)
class Duplicates:
    """Pairs of a test image and an image that the model was made with.

    Attributes:
        exact: Pairs of names with equal pixels.
        near: Pairs of names that show the same X-ray with other pixels.
        num_unchecked: Near candidates beyond `MAX_CANDIDATES`, which were not compared.
    """

    exact: list[tuple[str, str]]
    near: list[tuple[str, str]]
    num_unchecked: int = 0

    @property
    def num_test_images(self) -> int:
        """Test images that are in a pair."""
        return len({test for test, _ in (*self.exact, *self.near)})


def find_duplicates(images: pd.DataFrame, hashes: NDArray[np.uint8], pixels: Pixels) -> Duplicates:
    """Look for test images that train or validation holds as well.

    Checksums and perceptual hashes propose pairs; the pixels decide, since checksums of 32 bits
    collide by chance among 100,000 images. Of near ones, only each test image's nearest is checked.

    Args:
        images: N rows with `image`, `split` and `crc32`.
        hashes: (N, 64), of the same images.
        pixels: The images.
    """
    of_test = np.flatnonzero(images["split"] == "test")
    of_others = np.flatnonzero(images["split"].isin(NOT_TEST))
    if not (len(of_test) and len(of_others)):
        return Duplicates([], [])
    names = images["image"].to_numpy(dtype=object)
    exact = [
        (str(names[one]), str(names[two]))
        for one, two in _equal_checksums(images, of_test, of_others)
        if np.array_equal(*_read(pixels, names[one], names[two]))
    ]
    rows, distances = nearest_within(hashes[of_test], hashes[of_others], NEAR_BITS)
    known = {test for test, _ in exact}
    candidates = [
        (str(names[of_test[row]]), str(names[of_others[rows[row]]]))
        for row in np.argsort(distances, kind="stable")
        if distances[row] <= NEAR_BITS and names[of_test[row]] not in known
    ]
    checked = candidates[:MAX_CANDIDATES]
    near = [pair for pair in checked if _correlation(*_read(pixels, *pair)) >= NEAR_CORRELATION]
    return Duplicates(exact, near, len(candidates) - len(checked))


def _equal_checksums(
    images: pd.DataFrame, of_test: NDArray[np.int64], of_others: NDArray[np.int64]
) -> list[tuple[int, int]]:
    checksums = images["crc32"].to_numpy()
    others: dict[int, list[int]] = {}
    for row in of_others[np.isin(checksums[of_others], checksums[of_test])]:
        others.setdefault(int(checksums[row]), []).append(int(row))
    return [
        (int(row), other) for row in of_test for other in others.get(int(checksums[row]), ())[:1]
    ]


def _read(pixels: Pixels, one: str, two: str) -> NDArray[np.uint8]:
    return pixels.read(pixels.rows_of([one, two]))


def _correlation(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> float:
    small = shrink(to_unit(np.stack([one, two])), COMPARED_PX).reshape(2, -1)
    if not small.std(axis=1).all():
        return 0.0  # a blank image resembles nothing
    centred = small - small.mean(axis=1, keepdims=True)
    first, second = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return float(first @ second)
