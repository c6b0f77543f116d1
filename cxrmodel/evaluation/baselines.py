"""What a model must beat: principal components, thumbnails, metadata, and knowing the patient.

Constant baselines need no fit; `cxrmodel.evaluation.evaluate` judges all of them the same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from cxrmodel.data.label_columns import label_names, label_values, learnable
from cxrmodel.errors import SplitError
from cxrmodel.evaluation.patient_bootstrap import Floats
from cxrmodel.evaluation.perceptual_hash import hash_images
from cxrmodel.evaluation.predictions import PREFIX
from cxrmodel.evaluation.principal_components import PrincipalComponents
from cxrmodel.evaluation.resolution import enlarge, shrink, to_unit
from cxrmodel.models.similarity import ssim_of
from cxrmodel.progress import Progress, ReportProgress, silent
from cxrmodel.storage.layout import (
    HASHES_FILE,
    INDEX_FILE,
    LATENTS_FILE,
    PCA_LATENTS_FOLDER,
    RECONSTRUCTION_FILE,
    SPLIT_FILE,
)

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

NUM_COMPONENTS = 64
PCA_SIZE_PX = 256
THUMBNAIL_SIZES_PX = (16, 32)
MAX_RECONSTRUCTED = 2_000
BLOCK = 256  # images the PCA sees at once: 64 MiB of float32 at 256 px
READ = 16  # images read at full size at once: 64 MiB of float32 at 1,024 px
SEED = 42
MAX_ITERATIONS = 1_000
UNKNOWN = "unknown"


def fit_baselines(
    pixels: Pixels, split: Path, index: Path, directory: Path, *, report: ReportProgress = silent
) -> dict[str, Any]:
    """Fit the baselines on train images and write their predictions for every image of the split.

    The PCA sees pixels averaged down to 256 px a side (smaller images as they are). Predicted are
    the labels that the classifier learns: those of which train has a positive and a negative image.

    Args:
        pixels: Images of the split, among others.
        split: Folder of the split stage.
        index: Folder of the index stage.
        directory: Where `reconstruction.json` goes, the predictions `pca_logistic.parquet`,
            `metadata.parquet` and `patient_memory.parquet`, the components' coordinates as
            `pca_latents/latents.parquet`, for a network to be trained on them, and a perceptual
            fingerprint of each image as `hashes.parquet`.
        report: Called with the progress.

    Returns:
        `num_components`, and mean absolute error (`_l1`, on [0, 1]) and structural similarity
        (`_ssim`) at full size, of the PCA and of 16 and 32 px thumbnails, over `num_test_images`
        test images: at most 2,000, drawn at random. None without a test image.

    Raises:
        SplitError: The split has no train image.
    """
    table = pd.read_parquet(split / SPLIT_FILE)
    rows = pixels.rows_of(table["image"].tolist())
    fit_rows = rows[(table["split"] == "train").to_numpy()]
    done = _Counter(report, len(fit_rows) + len(rows))
    pca = _fit_pca(pixels, fit_rows, done.add)
    features, hashes = _transform(pixels, rows, pca, done.add)
    _write_predictions(table, index, features, directory)
    _write_components(table, features, pca, directory)
    _write_hashes(table, hashes, directory / HASHES_FILE)
    test_rows = _draw(rows[(table["split"] == "test").to_numpy()], MAX_RECONSTRUCTED)
    quality = _reconstruction_quality(pixels, test_rows, pca)
    summary = {"num_components": len(pca.components), "num_test_images": len(test_rows), **quality}
    (directory / RECONSTRUCTION_FILE).write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _write_predictions(
    table: pd.DataFrame, index: Path, features: NDArray[np.float64], directory: Path
) -> None:
    known = pd.read_parquet(index / INDEX_FILE).set_index("image").loc[table["image"]]
    names = np.array(label_names(index / INDEX_FILE), dtype=object)
    labels = label_values(known, names.tolist())
    in_train = (table["split"] == "train").to_numpy()
    can_be_learned = learnable(labels[in_train])
    names, labels = names[can_be_learned], labels[:, can_be_learned]
    predictions = {
        "pca_logistic": _predict_from_components(features, labels, in_train),
        "metadata": predict_from_metadata(known, labels, in_train),
        "patient_memory": remember_patients(known["patient_id"], labels, in_train),
    }
    for name, probabilities in predictions.items():
        _write(table, [PREFIX + pathology for pathology in names], probabilities, directory / name)


def _write(
    table: pd.DataFrame, columns: list[str], values: NDArray[np.float32], path: Path
) -> None:
    written = pd.concat([table, pd.DataFrame(values, columns=columns)], axis="columns")
    written.to_parquet(path.with_suffix(".parquet"), index=False, compression="zstd")


def _write_components(
    table: pd.DataFrame, features: NDArray[np.float64], pca: PrincipalComponents, directory: Path
) -> None:
    """Write the coordinates as the latents stage writes its own, of unit variance in train."""
    deviations = pca.singular_values / np.sqrt(max(pca.num_images, 1))
    scaled = (features / deviations).astype(np.float32)
    columns = [f"mu_{component:02d}" for component in range(scaled.shape[1])]
    (directory / PCA_LATENTS_FOLDER).mkdir()
    _write(table, columns, scaled, directory / PCA_LATENTS_FOLDER / LATENTS_FILE)


def _write_hashes(table: pd.DataFrame, hashes: NDArray[np.uint8], path: Path) -> None:
    written = table[["image"]].assign(hash=[row.tobytes() for row in hashes])
    written.to_parquet(path, index=False, compression="zstd")


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
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return the coordinates and the fingerprint of each image, from reading the pixels once."""
    coordinates, hashes = [], []
    side = min(pixels.size, PCA_SIZE_PX)
    for block in _read_blocks(pixels, rows, PCA_SIZE_PX):
        coordinates.append(pca.transform(block))
        hashes.append(hash_images(block.reshape(-1, side, side)))
        tell(len(block))
    return np.concatenate(coordinates), np.concatenate(hashes)


def _reconstruction_quality(
    pixels: Pixels, rows: NDArray[np.int64], pca: PrincipalComponents
) -> dict[str, float | None]:
    """Mean scores of each compression, enlarged again to the size of the images."""
    kinds = ("pca", *(f"thumbnail_{size}" for size in THUMBNAIL_SIZES_PX))
    sums = {f"{kind}_{score}": 0.0 for score in ("l1", "ssim") for kind in kinds}
    for start in range(0, len(rows), READ):
        images = to_unit(pixels.read(rows[start : start + READ]))  # (B, S, S)
        small = shrink(images, PCA_SIZE_PX)
        decoded = pca.inverse_transform(pca.transform(small.reshape(len(small), -1)))
        approximations = [decoded.astype(np.float32).reshape(small.shape)]
        approximations += [shrink(images, size) for size in THUMBNAIL_SIZES_PX]
        for kind, approximation in zip(kinds, approximations, strict=True):
            restored = np.clip(enlarge(approximation, pixels.size), 0, 1)
            sums[f"{kind}_l1"] += float(np.abs(restored - images).mean(axis=(1, 2)).sum())
            sums[f"{kind}_ssim"] += _total_ssim(restored, images)
    return {name: total / len(rows) if len(rows) else None for name, total in sums.items()}


def _total_ssim(restored: NDArray[np.float32], images: NDArray[np.float32]) -> float:
    """Add up the similarities; one image at a time, since two maps of its size are made."""
    pairs = (
        (torch.from_numpy(two[row, None, None]) for two in (restored, images))
        for row in range(len(images))
    )
    return sum(float(ssim_of(*pair)) for pair in pairs)


def _predict_from_components(
    features: Floats, labels: Floats, in_train: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return (N, C) probabilities of a standardised logistic regression per pathology."""
    found = np.empty(labels.shape, dtype=np.float32)
    for column in range(labels.shape[1]):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS))
        found[:, column] = fit_logistic(model, features, labels[:, column], in_train)
    return found


def predict_from_metadata(
    images: pd.DataFrame, labels: Floats, in_train: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Predict from age, sex and view with a logistic regression per pathology.

    Args:
        images: N rows with `age` (years), `sex` and `view`, any of them missing.
        labels: (N, C), NaN where unknown.
        in_train: (N,), which rows to fit on.

    Returns:
        (N, C) probabilities.
    """
    features = pd.DataFrame(
        {
            "age": pd.to_numeric(images["age"]).astype("float64").to_numpy(),
            "sex": images["sex"].astype(object).fillna(UNKNOWN).to_numpy(),
            "view": images["view"].astype(object).fillna(UNKNOWN).to_numpy(),
        }
    )
    found = np.empty(labels.shape, dtype=np.float32)
    for column in range(labels.shape[1]):
        found[:, column] = fit_logistic(_metadata_model(), features, labels[:, column], in_train)
    return found


def _metadata_model() -> Pipeline:
    age = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
    )
    kinds = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    transformer = make_column_transformer((age, ["age"]), (kinds, ["sex", "view"]))
    return make_pipeline(transformer, LogisticRegression(max_iter=MAX_ITERATIONS))


def remember_patients(
    patients: pd.Series, labels: Floats, in_train: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Predict what the same patient's train images are labelled: what a leak is worth.

    The patient's mean label, with the prevalence in train as one more image, so that a patient
    without a train image gets the prevalence. A train image does not see its own label.

    Args:
        patients: (N,), the patient of each row.
        labels: (N, C), NaN where unknown.
        in_train: (N,).

    Returns:
        (N, C) probabilities.
    """
    codes = pd.factorize(patients)[0]
    counted = in_train[:, None] & ~np.isnan(labels)  # (N, C)
    own = np.where(counted, labels, 0.0)
    sums, counts = (np.zeros((codes.max() + 1, labels.shape[1])) for _ in range(2))
    np.add.at(sums, codes, own)
    np.add.at(counts, codes, counted)
    others, num_others = sums[codes] - own, counts[codes] - counted
    prevalence = own.sum(axis=0) / counted.sum(axis=0)
    return np.asarray((others + prevalence) / (num_others + 1), dtype=np.float32)


def fit_logistic(
    model: Pipeline, features: Floats | pd.DataFrame, labels: Floats, in_train: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Fit on train rows and predict all; the prevalence in train where there is no feature.

    Args:
        model: Ends in a classifier.
        features: (N, F).
        labels: (N,), of one pathology, NaN where unknown; train has both 0 and 1.
        in_train: (N,).

    Returns:
        (N,) probabilities.
    """
    fitted = in_train & ~np.isnan(labels)
    known = labels[fitted].astype(np.uint8)
    if not features.shape[1]:
        return np.full(len(labels), known.mean(), dtype=np.float32)
    model.fit(features[fitted], known)
    return np.asarray(model.predict_proba(features)[:, 1], dtype=np.float32)
