"""Probabilities that fit a place: the bundle's own calibration, or a new one from local labels.

Platt scaling makes each logit `slope * logit + intercept`. It goes into the classifier's last
layer, into the thresholds and into the probabilities of the reference and the test images alike, so
that nothing that reads a bundle needs to know of it.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from cxrmodel.data.datasets.delimited import decode_table, separator_of
from cxrmodel.errors import DataError
from cxrmodel.evaluation.patient_bootstrap import PatientBootstrap
from cxrmodel.inference.bundle import (
    CARD,
    DESCRIPTION,
    REFERENCE,
    TEST,
    TRAIN,
    Bundle,
    read_file,
    save_weights,
    write_checksums,
)

LAST_LAYER = "classifier.layers.4"
MIN_OF_EACH = 10  # positive and negative images, and patients that have a positive one
NUM_FOLDS = 5
SEED = 0
WORDS = {"true": "1", "false": "0"}
SMALLEST = 1e-7  # probability: logits stay finite

Scaling = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class LocalFit:
    """What local labels say of one label.

    Attributes:
        label: Its name.
        slope: Of the logit; 1 where there are too few images.
        intercept: Likewise; 0 there.
        threshold: The highest F1 locally, on the new scale; None where there are too few, or the
            slope is 0.
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
                f"images are positive, and {MIN_OF_EACH} patients of each kind are needed"
            )
        low, high = self.interval
        found = (
            "no threshold, as its probability is no higher in positive images"
            if self.threshold is None
            else f"threshold {self.threshold:.4f}"
        )
        return (
            f"{self.label}: {found}; the Brier score falls by "
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
    slope, intercept = torch.tensor(pairs, dtype=torch.float32).reshape(-1, 2).T
    tensors, weight, bias = dict(bundle.tensors), f"{LAST_LAYER}.weight", f"{LAST_LAYER}.bias"
    tensors[weight] = tensors[weight] * slope[:, None]
    tensors[bias] = tensors[bias] * slope + intercept
    thresholds = dict(bundle.description["thresholds"])
    for label, (by, plus) in scaling.items():
        if by <= 0:  # every image has the same probability: no threshold can tell them apart
            thresholds[label] = None
        elif thresholds[label] is not None:
            thresholds[label] = float(scale(np.array(thresholds[label]), by, plus))
    unit = {label: {"slope": 1.0, "intercept": 0.0} for label in bundle.labels}
    description = {**bundle.description, "thresholds": thresholds, "calibration": unit}
    return replace(
        bundle,
        tensors=tensors,
        reference=_rescaled(bundle.reference, scaling),
        test=None if bundle.test is None else _rescaled(bundle.test, scaling),
        description=description,
    )


def _rescaled(scores: pd.DataFrame, scaling: Scaling) -> pd.DataFrame:
    changed = {
        f"p_{label}": scale(scores[f"p_{label}"].to_numpy(np.float64), by, plus)
        for label, (by, plus) in scaling.items()
    }
    return scores.assign(**{name: values.astype(np.float32) for name, values in changed.items()})


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
            "negative one, of images with a score, so there is nothing to fit. Give more labelled "
            "images."
        )
    new = rescale(bundle, {fit.label: (fit.slope, fit.intercept) for fit in told})
    thresholds = new.description["thresholds"] | {fit.label: fit.threshold for fit in told}
    about = {"digest": bundle.digest, "recalibrated": [fit.label for fit in told]}
    description = {**new.description, "thresholds": thresholds, "parent": about}
    return replace(new, description=description), fits


def write_bundle(bundle: Bundle, directory: Path) -> None:
    """Write a changed bundle; what tells train images again, and the card, stay its parent's.

    The card of a recalibrated bundle says so at its top.

    Raises:
        FileExistsError: There is something already.
    """
    check_is_new(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = directory.with_name(f"{directory.name[:100]}.{uuid.uuid4().hex}.partial")
    partial.mkdir()
    try:
        save_weights(bundle.tensors, partial)
        text = json.dumps(bundle.description, indent=1, sort_keys=True, allow_nan=False)
        (partial / DESCRIPTION).write_text(f"{text}\n", encoding="utf-8")
        bundle.reference.to_parquet(partial / REFERENCE, index=False, compression="zstd")
        if bundle.test is not None:
            bundle.test.to_parquet(partial / TEST, index=False, compression="zstd")
        (partial / TRAIN).write_bytes(read_file(bundle, TRAIN))
        card = read_file(bundle, CARD).decode("utf-8", errors="replace")
        parent = bundle.description.get("parent")
        text = _card_of_child(card, parent) if parent else card
        (partial / CARD).write_text(text, encoding="utf-8")
        write_checksums(partial)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _card_of_child(card: str, parent: Mapping[str, Any]) -> str:
    """Return a parent's card with a note below its header."""
    note = (
        f"**Recalibrated** from the bundle `{parent['digest']}`, with new probabilities and "
        f"thresholds for {', '.join(parent['recalibrated'])}. All metrics below, and in the header "
        "of this file, are the parent's, with its probabilities and thresholds: they say nothing "
        "of the site that this bundle is for.\n"
    )
    header = re.match(r"---\n.*?\n---\n", card, re.DOTALL)
    end = header.end() if header else 0
    return f"{card[:end]}\n{note}{card[end:]}"


def check_is_new(directory: Path) -> None:
    """Check that a bundle can be written to a folder.

    Raises:
        FileExistsError: There is something already.
    """
    if os.path.lexists(directory):
        raise FileExistsError(f"{directory} is there already. Give the name of a new folder.")


def _fit(scored: pd.DataFrame, label: str) -> LocalFit:
    known = scored[scored[label].notna() & scored[f"p_{label}"].notna()]
    labels = known[label].to_numpy(np.uint8)
    logits = _logit(known[f"p_{label}"].to_numpy(np.float64))
    patients = pd.factorize(known["patient_id"])[0]
    num, num_positive = len(labels), int(labels.sum())
    if not _are_enough(labels, patients):
        return LocalFit(label, 1.0, 0.0, None, None, None, num, num_positive)
    slope, intercept, threshold = _fitted(labels, logits)
    before = (_expit(logits) - labels) ** 2
    gain = before - (_left_out(labels, logits, patients) - labels) ** 2
    estimate = PatientBootstrap(patients).mean(gain, np.ones(len(gain), bool), "there is no image")
    return LocalFit(
        label, slope, intercept, threshold, estimate.value, estimate.interval, num, num_positive
    )


def fit_locally(
    labels: NDArray[np.uint8], probabilities: NDArray[np.float64], patients: NDArray[np.int64]
) -> tuple[float, float, float | None] | None:
    """Fit one label anew, as `recalibrate` does.

    Args:
        labels: (N,), 0 or 1.
        probabilities: (N,).
        patients: (N,).

    Returns:
        Slope, intercept and threshold, None where the slope is 0; nothing where there are fewer
        than `MIN_OF_EACH` patients with a positive image, or with a negative one.
    """
    return _fitted(labels, _logit(probabilities)) if _are_enough(labels, patients) else None


def _are_enough(labels: NDArray[np.uint8], patients: NDArray[np.int64]) -> bool:
    return min(len(np.unique(patients[labels == kind])) for kind in (0, 1)) >= MIN_OF_EACH


def _fitted(
    labels: NDArray[np.uint8], logits: NDArray[np.float64]
) -> tuple[float, float, float | None]:
    slope, intercept = _platt(labels, logits)
    scaled = _expit(slope * logits + intercept)
    return slope, intercept, _best_threshold(labels, scaled) if slope > 0 else None


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
    from cxrmodel.models.platt_scaling import (  # noqa: PLC0415 - scikit-learn
        fit_platt_scaling,
        platt_targets,
    )

    slope, intercept = fit_platt_scaling(labels, logits)
    if slope < 0:  # it would reverse the order of the images
        return 0.0, float(_logit(platt_targets(labels).mean()))
    return slope, intercept


def _best_threshold(labels: NDArray[np.uint8], probabilities: NDArray[np.float64]) -> float | None:
    from cxrmodel.evaluation.evaluate import best_threshold  # noqa: PLC0415 - scikit-learn

    return best_threshold(labels, probabilities).value


def scale(
    probabilities: NDArray[np.float64], slope: float, intercept: float
) -> NDArray[np.float64]:
    """Return probabilities whose logits are `slope * logit + intercept`."""
    return _expit(slope * _logit(probabilities) + intercept)


def _logit(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    return np.asarray(np.log(kept) - np.log1p(-kept))


def _expit(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-logits)))


def read_labels(path: Path, labels: tuple[str, ...], content: bytes | None = None) -> pd.DataFrame:
    """Return a table of local labels.

    Args:
        path: CSV or Parquet with a column `image`, paths relative to the table's folder, a column
            `patient_id`, and per label a column of its name, or `y_<label>`, with 1, 0 or nothing;
            labels may be absent.
        labels: What the bundle tells.
        content: Of the file, where it was read already.

    Raises:
        DataError: A column is missing, no label is there, or a label is something else.
    """
    if not labels:
        raise DataError("The model classifies nothing, so labels say nothing about it.")
    table = _read_table(path, path.read_bytes() if content is None else content)
    table = table.rename(columns={f"y_{label}": label for label in labels})
    present = [label for label in labels if label in table.columns]
    missing = [name for name in ("image", "patient_id") if name not in table.columns]
    if missing or not present:
        raise DataError(
            f"{path} has no column {', '.join(missing) or 'of a label'}. It needs image, "
            f"patient_id and one of {', '.join(labels)}; its columns are "
            f"{', '.join(table.columns)}."
        )
    wanted = ["image", "patient_id", *present]
    if twice := [name for name in wanted if list(table.columns).count(name) > 1]:
        raise DataError(
            f"{path} has two columns for {twice[0]}. Remove one of them; a label's column may be "
            "called by its name or y_<label>, and not both."
        )
    for name in ("image", "patient_id"):
        if (empty := table[name].isna()).any():
            raise DataError(f"{path}, row {int(empty.argmax()) + 1}, has no {name}.")
    if (repeated := table["image"].duplicated()).any():
        again = table["image"][repeated].iloc[0]
        raise DataError(f"{path} names the image {again} twice. Give a row per image.")
    read: dict[str, Any] = {name: table[name].astype("str") for name in ("image", "patient_id")}
    for label in labels:
        values = (
            table[label] if label in present else pd.Series(None, index=table.index, dtype="str")
        )
        read[label] = _zero_or_one(values, f"{path}, column {label}")
    return pd.DataFrame(read)


def _read_table(path: Path, content: bytes) -> pd.DataFrame:
    try:
        if path.suffix.casefold() == ".parquet":
            table = pd.read_parquet(io.BytesIO(content))
        else:
            text = decode_table(content, str(path))
            columns = {name: (name,) for name in ("image", "patient_id")}
            separator = separator_of(text, columns)
            table = pd.read_csv(
                io.StringIO(text), sep=separator, dtype="str", skipinitialspace=True
            )
            if not isinstance(table.index, pd.RangeIndex):  # pandas would shift the columns
                raise ValueError("its rows have more fields than its header")
    except (ValueError, pa.ArrowException) as error:
        text = str(error).rstrip(".")
        raise DataError(f"{path} cannot be read as a table: {text}.") from error
    return table.rename(columns=lambda name: str(name).strip()).reset_index(drop=True)


def _zero_or_one(values: pd.Series, where: str) -> pd.Series:
    if not pd.api.types.is_numeric_dtype(values.dtype):
        values = values.map(lambda value: WORDS.get(str(value).strip().casefold(), value))
    numbers = pd.to_numeric(values, errors="coerce")
    wrong = (numbers.isna() & values.notna()) | ~(numbers.isin([0, 1]) | numbers.isna())
    if wrong.any():
        raise DataError(f"{where} has {values[wrong].iloc[0]!r}; a label is 1, 0 or left empty.")
    return numbers
