"""Predicted probabilities of one part of a split, with the labels and patients to judge them by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.data.label_columns import label_values
from cxrmodel.errors import DamagedArtifactError

PREFIX = "p_"


@dataclass(frozen=True)
class Predictions:
    """N images, C pathologies.

    Attributes:
        pathologies: C names; none where nothing was classified.
        labels: (N, C), float64: 1 where the pathology is listed, 0 where it is not, NaN where
            nobody said.
        probabilities: (N, C), float64 in [0, 1].
        patients: (N,), int64, the same number for images of the same patient, from 0 upwards.
    """

    pathologies: tuple[str, ...]
    labels: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    patients: NDArray[np.int64]

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.patients)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which labels are known, (N, C)."""
        return ~np.isnan(self.labels)

    def of_class(
        self, column: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.bool_]]:
        """Return what one pathology is judged by.

        Returns:
            Labels, 0 or 1, and probabilities of the images whose label is known; and which these
            are, (N,).
        """
        known = self.known[:, column]
        labels = self.labels[known, column].astype(np.uint8)
        return labels, self.probabilities[known, column], known

    def with_probabilities(self, probabilities: NDArray[np.float64]) -> Predictions:
        """Return the same images with other (N, C) probabilities."""
        return Predictions(self.pathologies, self.labels, probabilities, self.patients)

    def with_constant(self, probability: float | NDArray[np.float64]) -> Predictions:
        """Return the same images with one probability, or (C,), one per pathology."""
        return self.with_probabilities(np.full_like(self.probabilities, probability))


def read_predictions(
    path: Path, index: Path, order: Sequence[str] | None = None
) -> dict[str, Predictions]:
    """Read a file of predictions and join it with the labels of the index.

    Args:
        path: Parquet file with `image`, `split` and a column `p_<pathology>` per pathology.
        index: `index.parquet`.
        order: Names of all images in the order to return them in; else that of the file.

    Returns:
        Predictions of `train`, `val` and `test`; a part without a row is empty.

    Raises:
        DamagedArtifactError: A predicted image is not in the index, a value is no probability, or
            an image of the order is not predicted.
    """
    table = pd.read_parquet(path)
    if order is not None:
        table = _in_order(table, order, path)
    columns = [column for column in table.columns if column.startswith(PREFIX)]
    names = [column.removeprefix(PREFIX) for column in columns]
    known = pd.read_parquet(index, columns=["image", "patient_id", *names]).set_index("image")
    rows = known.index.get_indexer(pd.Index(table["image"]))
    if (rows < 0).any():
        stranger = table["image"].iloc[int(np.argmax(rows < 0))]
        raise DamagedArtifactError(f"{path} predicts {stranger}, which is not in {index}.")
    probabilities = table[columns].to_numpy(dtype=np.float64)
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise DamagedArtifactError(f"{path} holds a value that is not a probability in [0, 1].")
    labels = label_values(known, names)[rows]
    patients = known["patient_id"].to_numpy()[rows]
    parts = {}
    for part in ("train", "val", "test"):
        of = (table["split"] == part).to_numpy()
        codes = np.unique(patients[of], return_inverse=True)[1].astype(np.int64)
        parts[part] = Predictions(tuple(names), labels[of], probabilities[of], codes)
    return parts


def _in_order(table: pd.DataFrame, order: Sequence[str], path: Path) -> pd.DataFrame:
    rows = pd.Index(table["image"]).get_indexer(pd.Index(order))
    if (rows < 0).any():
        missing = order[int(np.argmax(rows < 0))]
        raise DamagedArtifactError(f"{path} does not predict {missing}, which the split holds.")
    ordered: pd.DataFrame = table.iloc[rows].reset_index(drop=True)
    return ordered
