"""Probabilities that fit a place: the bundle's own calibration, or a new one from local labels.

Platt scaling makes each logit `slope * logit + intercept`. It goes into the classifier's last
layer, into the thresholds and into the reference's probabilities alike, so that nothing that
reads a bundle needs to know of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from cxrmodel.errors import DataError
from cxrmodel.inference.bundle import (
    CARD,
    DESCRIPTION,
    REFERENCE,
    TRAIN,
    WEIGHTS,
    Bundle,
    read_file,
    write_checksums,
)
from cxrmodel.inference.operating_points import patient_interval

LAST_LAYER = "classifier.layers.4"
MIN_OF_EACH = 10  # positive and negative images, and patients that have a positive one
NUM_FOLDS = 5
SEED = 0
SMALLEST = 1e-7  # probability: logits stay finite

Scaling = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class LocalFit:
    """What local labels say of one label.

    Attributes:
        label: Its name.
        slope: Of the logit; 1 where there are too few images.
        intercept: Likewise; 0 there.
        threshold: The highest F1 locally, on the new scale; None where there are too few.
        brier_gain: How much the mean squared error of the probabilities falls, measured on patients
            that the scaling was not fitted on; None where there are too few.
        interval: 95 % interval of that, patients resampled.
        num_images: With a label.
        num_positive: Of these.
    """

    label: str
    slope: float
    intercept: float
    threshold: float | None
    brier_gain: float | None
    interval: tuple[float, float] | None
    num_images: int
    num_positive: int

    def sentence(self) -> str:
        """Return it as a line for people."""
        if self.brier_gain is None or self.interval is None:
            return (
                f"{self.label}: unchanged; {self.num_positive} of {self.num_images} labelled "
                f"images are positive, and {MIN_OF_EACH} patients of either kind are needed"
            )
        low, high = self.interval
        return (
            f"{self.label}: threshold {self.threshold:.4f}; the Brier score falls by "
            f"{self.brier_gain:.4f} ({low:.4f} to {high:.4f}) on patients left out of the fit"
        )


def calibrated(bundle: Bundle) -> Bundle:
    """Return the bundle with its own calibration applied, as fitted on validation."""
    scaling = {
        label: (values["slope"], values["intercept"])
        for label, values in bundle.description["calibration"].items()
        if values["slope"] is not None
    }
    return rescale(bundle, scaling)


def rescale(bundle: Bundle, scaling: Scaling) -> Bundle:
    """Return a bundle whose logits are `slope * logit + intercept`.

    Args:
        bundle: As it is.
        scaling: Slope and intercept by label; a label that is not in it stays.
    """
    pairs = [scaling.get(label, (1.0, 0.0)) for label in bundle.labels]
    slope, intercept = (
        torch.tensor(values, dtype=torch.float32) for values in zip(*pairs, strict=True)
    )
    tensors, weight, bias = dict(bundle.tensors), f"{LAST_LAYER}.weight", f"{LAST_LAYER}.bias"
    tensors[weight] = tensors[weight] * slope[:, None]
    tensors[bias] = tensors[bias] * slope + intercept
    reference = bundle.reference.copy()
    thresholds = dict(bundle.description["thresholds"])
    for label, (by, plus) in scaling.items():
        name = f"p_{label}"
        reference[name] = _scaled(reference[name].to_numpy(np.float64), by, plus).astype(np.float32)
        if thresholds[label] is not None:
            thresholds[label] = float(_scaled(np.array(thresholds[label]), by, plus))
    unit = {label: {"slope": 1.0, "intercept": 0.0} for label in bundle.labels}
    description = {**bundle.description, "thresholds": thresholds, "calibration": unit}
    return replace(bundle, tensors=tensors, reference=reference, description=description)


def recalibrate(bundle: Bundle, scored: pd.DataFrame) -> tuple[Bundle, list[LocalFit]]:
    """Fit calibration and thresholds anew from local labels.

    Args:
        bundle: As it is.
        scored: A row per image: `patient_id`, per label `p_<label>` of this bundle, and a column
            of the label's name with 1, 0 or null.

    Returns:
        The new bundle, which names its parent, and what was fitted, a `LocalFit` per label.

    Raises:
        DataError: No label has enough images.
    """
    fits = [_fit(scored, label) for label in bundle.labels]
    told = [fit for fit in fits if fit.brier_gain is not None]
    if not told:
        raise DataError(
            f"No label has {MIN_OF_EACH} patients with a positive image and {MIN_OF_EACH} with a "
            "negative one, so there is nothing to fit. Give more labelled images."
        )
    new = rescale(bundle, {fit.label: (fit.slope, fit.intercept) for fit in told})
    thresholds = new.description["thresholds"] | {fit.label: fit.threshold for fit in told}
    about = {"digest": bundle.digest, "recalibrated": [fit.label for fit in told]}
    description = {**new.description, "thresholds": thresholds, "parent": about}
    return replace(new, description=description), fits


def write_bundle(bundle: Bundle, directory: Path) -> None:
    """Write a changed bundle; what tells train images again, and the card, stay its parent's.

    Raises:
        FileExistsError: There is something already.
    """
    directory.mkdir(parents=True)
    save_file({name: t.contiguous() for name, t in bundle.tensors.items()}, directory / WEIGHTS)
    text = json.dumps(bundle.description, indent=1, sort_keys=True, allow_nan=False)
    (directory / DESCRIPTION).write_text(f"{text}\n", encoding="utf-8")
    bundle.reference.to_parquet(directory / REFERENCE, index=False, compression="zstd")
    (directory / TRAIN).write_bytes(read_file(bundle, TRAIN))
    (directory / CARD).write_bytes(read_file(bundle, CARD))
    write_checksums(directory)


def _fit(scored: pd.DataFrame, label: str) -> LocalFit:
    known = scored[scored[label].notna() & scored[f"p_{label}"].notna()]
    labels = known[label].to_numpy(np.uint8)
    logits = _logit(known[f"p_{label}"].to_numpy(np.float64))
    patients = pd.factorize(known["patient_id"])[0]
    counts = {"num_images": len(labels), "num_positive": int(labels.sum())}
    of_each = [len(np.unique(patients[labels == kind])) for kind in (0, 1)]
    if min(of_each) < MIN_OF_EACH:
        return LocalFit(label, 1.0, 0.0, None, None, None, **counts)
    slope, intercept = _platt(labels, logits)
    before = (_expit(logits) - labels) ** 2
    gain = before - (_left_out(labels, logits, patients) - labels) ** 2
    threshold = _best_threshold(labels, _expit(slope * logits + intercept))
    interval = patient_interval(gain, np.ones_like(gain), patients)
    return LocalFit(label, slope, intercept, threshold, float(gain.mean()), interval, **counts)


def _left_out(
    labels: NDArray[np.uint8], logits: NDArray[np.float64], patients: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return probabilities of each fold of patients by a scaling fitted on the others."""
    found = np.empty(len(labels))
    with_positive = np.isin(patients, patients[labels == 1])
    folds = np.empty(int(patients.max()) + 1, np.int64)
    for group in (with_positive, ~with_positive):  # so that each fold has some of both
        members = np.random.default_rng(SEED).permutation(np.unique(patients[group]))
        folds[members] = np.arange(len(members)) % NUM_FOLDS
    for fold in range(NUM_FOLDS):
        left = folds[patients] == fold
        slope, intercept = _platt(labels[~left], logits[~left])
        found[left] = _expit(slope * logits[left] + intercept)
    return found


def _platt(labels: NDArray[np.uint8], logits: NDArray[np.float64]) -> tuple[float, float]:
    from cxrmodel.models.platt_scaling import fit_platt_scaling  # noqa: PLC0415 - scikit-learn

    return fit_platt_scaling(labels, logits)


def _best_threshold(labels: NDArray[np.uint8], probabilities: NDArray[np.float64]) -> float | None:
    from cxrmodel.evaluation.evaluate import best_threshold  # noqa: PLC0415 - scikit-learn

    return best_threshold(labels, probabilities).value


def _scaled(
    probabilities: NDArray[np.float64], slope: float, intercept: float
) -> NDArray[np.float64]:
    return _expit(slope * _logit(probabilities) + intercept)


def _logit(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    return np.asarray(np.log(kept) - np.log1p(-kept))


def _expit(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-logits)))


def read_labels(path: Path, labels: tuple[str, ...]) -> pd.DataFrame:
    """Return a table of local labels.

    Args:
        path: CSV or Parquet with a column `image`, paths relative to the table's folder, a column
            `patient_id`, and a column of 1, 0 or nothing per label; labels may be absent.
        labels: What the bundle tells.

    Raises:
        DataError: A column is missing, no label is there, or a label is something else.
    """
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype="str")
    present = [label for label in labels if label in table.columns]
    missing = [name for name in ("image", "patient_id") if name not in table.columns]
    if missing or not present:
        raise DataError(
            f"{path} has no column {', '.join(missing) or 'of a label'}. It needs image, "
            f"patient_id and one of {', '.join(labels)}; its columns are "
            f"{', '.join(table.columns)}."
        )
    read: dict[str, Any] = {name: table[name].astype("str") for name in ("image", "patient_id")}
    for label in labels:
        values = (
            table[label] if label in present else pd.Series(None, index=table.index, dtype="str")
        )
        read[label] = _zero_or_one(values, f"{path}, column {label}")
    return pd.DataFrame(read)


def _zero_or_one(values: pd.Series, where: str) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce")
    wrong = (numbers.isna() & values.notna()) | ~(numbers.isin([0, 1]) | numbers.isna())
    if wrong.any():
        raise DataError(f"{where} has {values[wrong].iloc[0]!r}; a label is 1, 0 or left empty.")
    return numbers
