"""What a model must beat: principal components with logistic regressions, and thumbnails.

The all-positive baseline needs no fit; `cxrmodel.evaluation.evaluate` judges all alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrmodel.errors import SplitError
from cxrmodel.evaluation.predictions import PREFIX
from cxrmodel.evaluation.principal_components import PrincipalComponents
from cxrmodel.evaluation.resolution import enlarge, shrink, to_unit
from cxrmodel.progress import Progress, ReportProgress, silent

if TYPE_CHECKING:
    from cxrmodel.data.pixels import Pixels

NUM_COMPONENTS = 64
PCA_SIZE_PX = 256
THUMBNAIL_SIZES_PX = (16, 32)
MAX_RECONSTRUCTED = 2_000
BLOCK = 256  # images the PCA sees at once: 64 MiB of float32 at 256 px
READ = 16  # images read at full size at once: 64 MiB of float32 at 1,024 px
SEED = 42
MAX_ITERATIONS = 1_000

PREDICTIONS = "pca_logistic.parquet"
RECONSTRUCTION = "reconstruction.json"


def fit_baselines(
    pixels: Pixels, split: Path, index: Path, directory: Path, *, report: ReportProgress = silent
) -> dict[str, Any]:
    """Fit the baselines on train images and write their predictions for every image of the split.

    The PCA sees pixels averaged down to 256 px a side (smaller images as they are). A pathology
    that no train image has, or every one, gets its prevalence in train as constant probability.

    Args:
        pixels: Images of the split, among others.
        split: Folder of the split stage.
        index: Folder of the index stage.
        directory: Where `pca_logistic.parquet` and `reconstruction.json` are written.
        report: Called with the progress.

    Returns:
        `num_components`, and the mean absolute error (L1, on [0, 1], at full size) of the PCA and
        of 16 and 32 px thumbnails, over `num_test_images` test images: at most 2,000, drawn at
        random. None without a test image.

    Raises:
        SplitError: The split has no train image.
    """
    table = pd.read_parquet(split / "split.parquet")
    rows = pixels.rows_of(table["image"].tolist())
    in_train = (table["split"] == "train").to_numpy()
    fit_rows = rows[in_train]
    done = _Counter(report, len(fit_rows) + len(rows))
    pca = _fit_pca(pixels, fit_rows, done.add)
    features = _transform(pixels, rows, pca, done.add)
    known = pd.read_parquet(index / "index.parquet").set_index("image")
    columns = known.columns.tolist()
    names = columns[columns.index("any_abnormal") + 1 :]
    labels = known.loc[table["image"].tolist(), names].to_numpy(dtype=np.uint8)
    for column, name in enumerate(names):
        table[PREFIX + name] = _fit_logistic(features, labels[:, column], in_train)
    table.to_parquet(directory / PREDICTIONS, index=False, compression="zstd")
    test_rows = _draw(rows[(table["split"] == "test").to_numpy()], MAX_RECONSTRUCTED)
    errors = _reconstruction_errors(pixels, test_rows, pca)
    summary = {"num_components": len(pca.components), "num_test_images": len(test_rows), **errors}
    (directory / RECONSTRUCTION).write_text(json.dumps(summary, indent=1) + "\n")
    return summary


class _Counter:
    def __init__(self, report: ReportProgress, total: int) -> None:
        self._report, self._done, self._total = report, 0, total

    def add(self, num_images: int) -> None:
        self._done += num_images
        self._report(Progress("baselines", self._done, self._total))


def _draw(rows: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Return at most `limit` rows, drawn at random, in their order."""
    if len(rows) <= limit:
        return rows
    return rows[np.sort(np.random.default_rng(SEED).choice(len(rows), limit, replace=False))]


def _read_blocks(
    pixels: Pixels, rows: NDArray[np.int64], size: int
) -> Iterator[NDArray[np.float32]]:
    """Yield (up to `BLOCK`, side * side) shrunken images; full-size ones are few at a time."""
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        small = [
            shrink(to_unit(pixels.read(block[first : first + READ])), size)
            for first in range(0, len(block), READ)
        ]
        yield np.concatenate(small).reshape(len(block), -1)


def _fit_pca(
    pixels: Pixels, rows: NDArray[np.int64], tell: Callable[[int], None]
) -> PrincipalComponents:
    if not len(rows):
        raise SplitError("The split has no train image, and the baselines are fitted on train.")
    pca = PrincipalComponents.none(min(pixels.size, PCA_SIZE_PX) ** 2)
    for block in _read_blocks(pixels, rows, PCA_SIZE_PX):
        pca = pca.updated(block, NUM_COMPONENTS)
        tell(len(block))
    return pca


def _transform(
    pixels: Pixels, rows: NDArray[np.int64], pca: PrincipalComponents, tell: Callable[[int], None]
) -> NDArray[np.float64]:
    parts = []
    for block in _read_blocks(pixels, rows, PCA_SIZE_PX):
        parts.append(pca.transform(block))
        tell(len(block))
    return np.concatenate(parts)


def _fit_logistic(
    features: NDArray[np.float64], labels: NDArray[np.uint8], in_train: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return (N,) probabilities; the prevalence in train where train holds only one class."""
    known = labels[in_train]
    if known.min() == known.max() or not features.shape[1]:
        return np.full(len(labels), known.mean(), dtype=np.float32)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS))
    model.fit(features[in_train], known)
    return np.asarray(model.predict_proba(features)[:, 1], dtype=np.float32)


def _reconstruction_errors(
    pixels: Pixels, rows: NDArray[np.int64], pca: PrincipalComponents
) -> dict[str, float | None]:
    """Mean absolute error of each compression, enlarged again to the size of the images."""
    sums = {"pca_l1": 0.0} | {f"thumbnail_{size}_l1": 0.0 for size in THUMBNAIL_SIZES_PX}
    for start in range(0, len(rows), READ):
        images = to_unit(pixels.read(rows[start : start + READ]))  # (B, S, S)
        small = shrink(images, PCA_SIZE_PX)
        decoded = pca.inverse_transform(pca.transform(small.reshape(len(small), -1)))
        approximations = {"pca_l1": decoded.astype(np.float32).reshape(small.shape)}
        for size in THUMBNAIL_SIZES_PX:
            approximations[f"thumbnail_{size}_l1"] = shrink(images, size)
        for name, approximation in approximations.items():
            restored = np.clip(enlarge(approximation, pixels.size), 0, 1)
            sums[name] += float(np.abs(restored - images).mean(axis=(1, 2)).sum())
    return {name: total / len(rows) if len(rows) else None for name, total in sums.items()}
