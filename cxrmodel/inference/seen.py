"""Whether images or patients are among those that a bundle was made with."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.errors import DataError
from cxrmodel.evaluation.audit.duplicates import NEAR_BITS
from cxrmodel.evaluation.perceptual_hash import nearest_within
from cxrmodel.evaluation.sites import OVERLAPS
from cxrmodel.inference.bundle import Bundle, patient_hash, read_train_table

Rows = NDArray[np.bool_]

NUM_SHOWN = 3
HASHES_UNKNOWN = (
    "The bundle was made before bundles had fingerprints of their images and a list of validation "
    "images, so near copies of train images, and images of validation, are not found. Make it "
    "again by running its training."
)


class SeenImages:
    """The images and patients of train and validation.

    Args:
        bundle: What was made with them.

    Attributes:
        is_complete: Whether the bundle lists validation images, and fingerprints.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._table = read_train_table(bundle)
        self._salt = bundle.description["salt"]
        self.is_complete = "hash" in self._table

    def pixels(self, crc32: NDArray[np.int64], hashes: NDArray[np.uint8] | None = None) -> Rows:
        """Tell which images have the pixels of one that was seen.

        Args:
            crc32: (N,), of the pixels as the model sees them; -1 where there are none.
            hashes: (N, 64), fingerprints, by which images whose checksums are equal by chance are
                told apart: of 10,000 images beside 100,000 others one has such a checksum in one
                case of five.
        """
        seen = self._table["crc32"].to_numpy().astype(np.int64)
        found = np.isin(crc32, seen)
        if hashes is None or not self.is_complete:
            return found
        known = set(zip(seen.tolist(), self._table["hash"], strict=True))
        rows = np.flatnonzero(found)
        found[rows] = [(int(crc32[row]), hashes[row].tobytes()) in known for row in rows]
        return found

    def near(self, hashes: NDArray[np.uint8]) -> Rows:
        """Tell which images show what one that was seen shows, by (N, 64) fingerprints.

        Of real images at 64 and 256 px, copies as JPEG, of a quarter of the size or of another
        gamma differ in at most 14 bits of 512 but for the worst compression, and images of
        different patients in at least 56. A copy whose bright parts were cut off, or that was
        cropped by 1 %, may differ in more than the limit.
        """
        if not (self.is_complete and len(hashes) and len(self._table)):
            return np.zeros(len(hashes), dtype=bool)
        joined = b"".join(self._table["hash"])
        seen = np.frombuffer(joined, np.uint8).reshape(len(self._table), -1)
        return np.asarray(nearest_within(hashes, seen, NEAR_BITS)[1] <= NEAR_BITS)

    def hashes_of(self, patients: pd.Series) -> pd.Series:
        """Return what the bundle's tables have for some patients."""
        return patients.map({each: patient_hash(self._salt, each) for each in patients.unique()})

    def patients(self, patients: pd.Series) -> Rows:
        """Tell which images are of a patient who was seen."""
        return np.asarray(self.hashes_of(patients).isin(self._table["patient"]))


def refuse_overlap(names: pd.Series, found: pd.DataFrame, allowed: Iterable[str]) -> None:
    """Raise an error where images or patients were seen in training and that is not allowed.

    Args:
        names: (N,), of the images.
        found: Which of them overlap, N rows, a column per kind of `OVERLAPS`.
        allowed: Kinds that are accepted.

    Raises:
        DataError: Some overlap in a kind that is not allowed; it says how many, and what to do.
    """
    refused = [kind for kind in OVERLAPS if kind in found and found[kind].any()]
    refused = [kind for kind in refused if kind not in allowed]
    if not refused:
        return
    lines = []
    for kind in refused:
        first = ", ".join(names[found[kind].to_numpy()].iloc[:NUM_SHOWN])
        count = f"{int(found[kind].sum()):,} of {len(names):,} images have {OVERLAPS[kind]}"
        lines.append(f"{kind}: {count}, first {first}")
    flags = " ".join(f"--allow_overlap {kind}" for kind in refused)
    raise DataError(
        "The model was made with some of these images or patients, so that its figures on them "
        f"would be too good. {'. '.join(lines)}. Set leave_out_overlap (--leave_out_overlap) to "
        f"evaluate on the other images, or allow what is no overlap in truth ({flags}), such as "
        "patient ids that two hospitals happen to share."
    )
