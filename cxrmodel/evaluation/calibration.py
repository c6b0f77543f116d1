"""How far probabilities can be taken at their word, and Platt scaling that mends what it can.

Sources: J. Platt, Probabilistic outputs for support vector machines, 1999 (the scaling and its
targets); K. Nguyen, B. O'Connor, Posterior calibration and exploratory analysis, EMNLP 2015
(the error over bins that hold equally many images).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from cxrmodel.evaluation.bootstrap import draw_patients
from cxrmodel.evaluation.intervals import (
    MIN_PATIENTS,
    NUM_RESAMPLES,
    Difference,
    mean_over_classes,
    percentile_interval,
)
from cxrmodel.evaluation.metrics import NO_IMAGE, Metric, brier, macro
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.evaluation.tallies import Ratio, squared_errors
from cxrmodel.evaluation.thresholds import NO_POSITIVE_IN_VALIDATION

MAX_BINS = 10
MIN_IN_BIN = 20  # images, so that a share means something
CERTAIN = 1e-6  # probabilities are kept so far from 0 and 1, where the logit is infinite
NO_NEGATIVE_IN_VALIDATION = "no negative image in validation"


@dataclass(frozen=True)
class Reliability:
    """What was predicted and what was so, in bins of about equally many images.

    Attributes:
        predicted: (B,), mean probability of each bin, increasing.
        observed: (B,), share of positive images of each bin.
        counts: (B,), images of each bin.
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def error(self) -> Metric:
        """Expected calibration error: mean distance of the two over the images."""
        if not len(self.counts):
            return Metric.undefined(NO_IMAGE)
        distance = np.abs(self.predicted - self.observed)
        return Metric(float(np.average(distance, weights=self.counts)))


def measure_reliability(
    labels: NDArray[np.uint8], probabilities: NDArray[np.float64]
) -> Reliability:
    """Bin images by quantiles of their probability; equal probabilities share a bin.

    Ten bins, fewer where they would hold fewer than twenty images.

    Args:
        labels: (N,), 0 or 1.
        probabilities: (N,), in [0, 1].
    """
    if not len(labels):
        return Reliability(np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
    num_bins = int(np.clip(len(labels) // MIN_IN_BIN, 1, MAX_BINS))
    inner_edges = np.quantile(probabilities, np.linspace(0, 1, num_bins + 1)[1:-1])
    bins = np.searchsorted(np.unique(inner_edges), probabilities, side="right")
    counts = np.bincount(bins)
    used = counts > 0
    return Reliability(
        np.bincount(bins, probabilities)[used] / counts[used],
        np.bincount(bins, labels)[used] / counts[used],
        counts[used],
    )


@dataclass(frozen=True)
class Calibrator:
    """Platt scaling of one class: the logit times a slope, plus an intercept.

    Attributes:
        slope: Below 1 where the probabilities are too sure, never negative; None where it could not
            be fitted.
        intercept: In logits.
        reason: Why it could not be fitted.
    """

    slope: float | None
    intercept: float | None
    reason: str | None = None

    def apply(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return calibrated probabilities, or the same ones where there is no scaling."""
        if self.slope is None or self.intercept is None:
            return probabilities
        return np.asarray(expit(self.slope * _logit(probabilities) + self.intercept))


def fit_calibrator(labels: NDArray[np.uint8], probabilities: NDArray[np.float64]) -> Calibrator:
    """Fit Platt scaling.

    Args:
        labels: (N,), 0 or 1, of validation images.
        probabilities: (N,), in [0, 1].
    """
    num_positive = int(labels.sum())
    num_negative = len(labels) - num_positive
    if not num_positive:
        return Calibrator(None, None, NO_POSITIVE_IN_VALIDATION)
    if not num_negative:
        return Calibrator(None, None, NO_NEGATIVE_IN_VALIDATION)
    # Platt's targets, short of 0 and 1, keep a few images from being fitted without an error.
    targets = np.where(labels == 1, (num_positive + 1) / (num_positive + 2), 1 / (num_negative + 2))
    logits = np.tile(_logit(probabilities), 2)[:, None]
    both = np.repeat([1, 0], len(labels))
    model = LogisticRegression(C=np.inf)
    model.fit(logits, both, sample_weight=np.concatenate([targets, 1 - targets]))
    if model.coef_[0, 0] < 0:  # it would turn the order of the images round
        return Calibrator(0.0, float(logit(targets.mean())))
    return Calibrator(float(model.coef_[0, 0]), float(model.intercept_[0]))


def fit_calibrators(validation: Predictions) -> dict[str, Calibrator]:
    """Return a calibrator a pathology, from validation images alone."""
    return {
        name: fit_calibrator(validation.labels[:, column], validation.probabilities[:, column])
        for column, name in enumerate(validation.pathologies)
    }


@dataclass(frozen=True)
class ClassCalibration:
    """One pathology on test, before and after scaling; alike where it could not be fitted."""

    calibrator: Calibrator
    before: Reliability
    after: Reliability
    brier_before: Metric
    brier_after: Metric


@dataclass(frozen=True)
class Calibration:
    """A model's probabilities on test.

    Attributes:
        per_class: By pathology.
        macro: Unweighted means: `ece_before`, `ece_after`, `brier_before`, `brier_after`.
        gain: Macro Brier score after less before, paired; `lower` says that scaling helps, so that
            the probabilities as they are were miscalibrated.
    """

    per_class: dict[str, ClassCalibration]
    macro: dict[str, Metric]
    gain: Difference


def evaluate_calibration(
    validation: Predictions, test: Predictions, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Calibration:
    """Fit Platt scaling on validation, then judge test before and after.

    Args:
        validation: Only the calibrators are fitted on it.
        test: What is judged.
        num_resamples: Bootstrap draws of the test patients.
        seed: Seed of the draws.
    """
    calibrators = fit_calibrators(validation)
    columns = [
        calibrator.apply(test.probabilities[:, column])
        for column, calibrator in enumerate(calibrators.values())
    ]
    calibrated = test.with_probabilities(np.stack(columns, axis=1))
    per_class = {
        name: _evaluate_class(test, calibrated, column, calibrators[name])
        for column, name in enumerate(test.pathologies)
    }
    entries = list(per_class.values())
    means = {
        "ece_before": macro([entry.before.error for entry in entries]),
        "ece_after": macro([entry.after.error for entry in entries]),
        "brier_before": macro([entry.brier_before for entry in entries]),
        "brier_after": macro([entry.brier_after for entry in entries]),
    }
    return Calibration(per_class, means, _gain(test, calibrated, num_resamples, seed))


def _evaluate_class(
    test: Predictions, calibrated: Predictions, column: int, calibrator: Calibrator
) -> ClassCalibration:
    labels = test.labels[:, column]
    before, after = test.probabilities[:, column], calibrated.probabilities[:, column]
    return ClassCalibration(
        calibrator,
        measure_reliability(labels, before),
        measure_reliability(labels, after),
        brier(labels, before),
        brier(labels, after),
    )


def _gain(test: Predictions, calibrated: Predictions, num_resamples: int, seed: int) -> Difference:
    before, after = squared_errors(test), squared_errors(calibrated)
    change = Ratio(after.part - before.part, before.whole)
    num_patients = len(change.part)
    if not num_patients:
        return Difference(None, None)
    value = float(change.resampled(np.ones((1, num_patients))).mean())
    if num_patients < MIN_PATIENTS:
        return Difference(value, None)
    drawn = draw_patients(num_patients, num_resamples, seed)
    resampled = np.concatenate([change.resampled(patients) for patients in drawn])
    return Difference(value, percentile_interval(mean_over_classes(resampled)))


def _logit(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(logit(np.clip(probabilities, CERTAIN, 1 - CERTAIN)))
