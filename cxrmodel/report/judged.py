"""What a later comparison needs of a run: predictions, labels and errors of its test images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.evaluation.predictions import PREFIX, Predictions
from cxrmodel.report.inputs import RunTables

LABEL_PREFIX = "y_"


def write_test_predictions(tables: RunTables, path: Path) -> None:
    """Write `image`, `patient_id`, `l1`, and `y_` and `p_` of each pathology, a row per image."""
    of_test = (tables.images["split"] == "test").to_numpy()
    table = tables.images.loc[of_test, ["image", "patient_id"]].reset_index(drop=True)
    table["l1"] = tables.latents.loc[of_test, "l1"].to_numpy()
    test = tables.classifier["test"]
    labels = pd.DataFrame(test.labels, columns=[LABEL_PREFIX + name for name in test.pathologies])
    probabilities = pd.DataFrame(
        test.probabilities.astype(np.float32), columns=[PREFIX + name for name in test.pathologies]
    )
    written = pd.concat([table, labels, probabilities], axis="columns")
    written.to_parquet(path, index=False, compression="zstd")


def to_predictions(table: pd.DataFrame) -> Predictions:
    """Return what was written as predictions."""
    columns = [name for name in table.columns if name.startswith(PREFIX)]
    names = tuple(column.removeprefix(PREFIX) for column in columns)
    patients: NDArray[np.int64] = pd.factorize(table["patient_id"], sort=True)[0].astype(np.int64)
    labels = table[[LABEL_PREFIX + name for name in names]].to_numpy(dtype=np.uint8)
    return Predictions(names, labels, table[columns].to_numpy(dtype=np.float64), patients)
