"""Whether probabilities can be taken at face value, and Platt scaling to correct them.

Source of the bins, which hold equally many images: K. Nguyen, B. O'Connor, Posterior calibration
and exploratory analysis, EMNLP 2015.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from cxrmodel.evaluation.evaluate import NO_POSITIVE_IN_VALIDATION
from cxrmodel.evaluation.metrics import NO_IMAGE, squared_errors
from cxrmodel.evaluation.patient_bootstrap import (
    Estimate,
    Floats,
    PatientBootstrap,
    divide,
    macro,
    mean,
    mean_over_classes,
)
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.models.platt_scaling import fit_platt_scaling, platt_targets

CERTAIN = 1e-6  # probabilities are kept this far from 0 and 1, where the logit is infinite
MAX_BINS = 10
MIN_IN_BIN = 20  # images, so that a share means something
NO_NEGATIVE_IN_VALIDATION = "no negative image in validation"


@dataclass(frozen=True)
class Calibrator:
    """Platt scaling of one class: the logit times a slope, plus an intercept.

    Attributes:
        slope: Below 1 where the probabilities are overconfident, never negative; None where it
            could not be fitted.
        intercept: In logits.
        reason: Why it could not be fitted.
    """

    slope: float | None
    intercept: float | None
    reason: str | None = None

    def apply(self, probabilities: Floats) -> Floats:
        """Return calibrated probabilities, or the same ones where there is no scaling."""
        if self.slope is None or self.intercept is None:
            return probabilities
        return np.asarray(expit(self.slope * _logit(probabilities) + self.intercept))


def fit_calibrator(labels: NDArray[np.uint8], probabilities: Floats) -> Calibrator:
    """Fit Platt scaling.

    Args:
        labels: (N,), 0 or 1, of validation images.
        probabilities: (N,), in [0, 1].
    """
    num_positive = int(labels.sum())
    if not num_positive:
        return Calibrator(None, None, NO_POSITIVE_IN_VALIDATION)
    if num_positive == len(labels):
        return Calibrator(None, None, NO_NEGATIVE_IN_VALIDATION)
    slope, intercept = fit_platt_scaling(labels, _logit(probabilities))
    if slope < 0:  # it would reverse the order of the images
        return Calibrator(0.0, float(logit(platt_targets(labels).mean())))
    return Calibrator(slope, intercept)


def fit_calibrators(validation: Predictions) -> dict[str, Calibrator]:
    """Return a calibrator per pathology, from validation images alone."""
    return {
        name: fit_calibrator(*validation.of_class(column)[:2])
        for column, name in enumerate(validation.pathologies)
    }


def _logit(probabilities: Floats) -> Floats:
    return np.asarray(logit(np.clip(probabilities, CERTAIN, 1 - CERTAIN)))


@dataclass(frozen=True)
class Reliability:
    """What was predicted and what was observed, in bins of about equally many images.

    Attributes:
        predicted: (B,), mean probability of each bin, increasing.
        observed: (B,), share of positive images of each bin.
        counts: (B,), images of each bin.
    """

    predicted: Floats
    observed: Floats
    counts: NDArray[np.int64]

    @property
    def error(self) -> Estimate:
        """Expected calibration error: mean distance of the two over the images."""
        if not len(self.counts):
            return Estimate.undefined(NO_IMAGE)
        distance = np.abs(self.predicted - self.observed)
        return Estimate(float(np.average(distance, weights=self.counts)))


def measure_reliability(labels: NDArray[np.uint8], probabilities: Floats) -> Reliability:
    """Bin images by quantiles of their probability; equal probabilities share a bin.

    Ten bins, fewer where they would hold fewer than twenty images.

    Args:
        labels: (N,), 0 or 1.
        probabilities: (N,), in [0, 1].
    """
    bins = _bins_of(probabilities)
    counts = np.bincount(bins)
    used = counts > 0
    return Reliability(
        np.bincount(bins, probabilities)[used] / counts[used],
        np.bincount(bins, labels)[used] / counts[used],
        counts[used],
    )


def _bins_of(probabilities: Floats) -> NDArray[np.int64]:
    if not len(probabilities):
        return np.zeros(0, dtype=np.int64)
    num_bins = int(np.clip(len(probabilities) // MIN_IN_BIN, 1, MAX_BINS))
    inner_edges = np.quantile(probabilities, np.linspace(0, 1, num_bins + 1)[1:-1])
    return np.searchsorted(np.unique(inner_edges), probabilities, side="right").astype(np.int64)


def resample_errors(test: Predictions, bootstrap: PatientBootstrap) -> Floats:
    """Return (R, C) expected calibration errors of the resamples, in the bins of the test images.

    The distance in a bin times its images is the absolute sum of predicted minus observed. Images
    whose label is unknown are in no bin.

    Args:
        test: N images of C classes.
        bootstrap: Of the same images.
    """
    num_classes = len(test.pathologies)
    by_bin = np.zeros((test.num_images, num_classes, MAX_BINS))  # (N, C, bins)
    for column in range(num_classes):
        labels, probabilities, known = test.of_class(column)
        by_bin[np.flatnonzero(known), column, _bins_of(probabilities)] = probabilities - labels
    flat = by_bin.reshape(test.num_images, num_classes * MAX_BINS)
    sums = bootstrap.sum_by_patient(flat)  # (P, C * bins)
    counts = bootstrap.sum_by_patient(test.known)  # (P, C)

    def score(drawn: Floats) -> Floats:
        distances = np.abs(drawn @ sums).reshape(len(drawn), num_classes, MAX_BINS).sum(axis=2)
        return divide(distances, drawn @ counts)

    return bootstrap.resample(score)


def centred(error: Estimate) -> Estimate:
    """Move the interval of a resampled error so that the mean of the resamples is the error.

    An error is a mean of distances: noise makes it grow, and resamples have more noise than the
    test images. Unmoved, the interval can lie above the error that it belongs to.
    """
    if error.value is None or error.interval is None:
        return error
    surplus = float(np.nanmean(error.resamples)) - error.value
    low, high = error.interval
    return dataclasses.replace(error, interval=(max(0.0, low - surplus), high - surplus))


@dataclass(frozen=True)
class ClassCalibration:
    """One pathology on test, before and after scaling; the same where it could not be fitted.

    Attributes:
        calibrator: The scaling.
        before, after: Reliability of the probabilities.
        metrics: `ece_before`, `ece_after`, and without an interval `brier_before`, `brier_after`.
    """

    calibrator: Calibrator
    before: Reliability
    after: Reliability
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class Calibration:
    """A model's probabilities on test.

    Attributes:
        per_class: By pathology.
        macro: Unweighted means of its metrics.
        gain: Macro Brier score after scaling minus before, paired; its verdict `lower` says that
            scaling helps: the probabilities as they are are miscalibrated.
    """

    per_class: dict[str, ClassCalibration]
    macro: dict[str, Estimate]
    gain: Estimate


def evaluate_calibration(
    validation: Predictions, test: Predictions, bootstrap: PatientBootstrap
) -> Calibration:
    """Fit Platt scaling on validation, then judge test before and after.

    Args:
        validation: Only the calibrators are fitted on it.
        test: What is judged.
        bootstrap: Of the test images.
    """
    return judge_calibration(fit_calibrators(validation), test, bootstrap)


def judge_calibration(
    calibrators: dict[str, Calibrator], test: Predictions, bootstrap: PatientBootstrap
) -> Calibration:
    """Judge images before and after a given scaling.

    Args:
        calibrators: By pathology, in the order of the predictions.
        test: What is judged.
        bootstrap: Of the same images.
    """
    parts = {"before": test, "after": calibrate(calibrators, test)}
    resampled = {when: resample_errors(part, bootstrap) for when, part in parts.items()}
    per_class = {
        name: _evaluate_class(calibrators[name], parts, column, resampled, bootstrap)
        for column, name in enumerate(test.pathologies)
    }

    def of_all(name: str) -> list[Estimate]:
        return [entry.metrics[name] for entry in per_class.values()]

    errors = {
        f"ece_{when}": centred(bootstrap.macro(of_all(f"ece_{when}"), values))
        for when, values in resampled.items()
    }
    scores = {f"brier_{when}": macro(of_all(f"brier_{when}")) for when in parts}
    return Calibration(
        per_class, errors | scores, _gain(parts["before"], parts["after"], bootstrap)
    )


def calibrate(calibrators: dict[str, Calibrator], predictions: Predictions) -> Predictions:
    """Return the same images with scaled probabilities."""
    scaled = np.empty_like(predictions.probabilities)
    for column, calibrator in enumerate(calibrators.values()):
        scaled[:, column] = calibrator.apply(predictions.probabilities[:, column])
    return predictions.with_probabilities(scaled)


def _evaluate_class(
    calibrator: Calibrator, parts: dict[str, Predictions], column: int,
    resampled: dict[str, Floats], bootstrap: PatientBootstrap,
) -> ClassCalibration:  # fmt: skip
    curves, metrics = {}, {}
    for when, part in parts.items():
        labels, probabilities, known = part.of_class(column)
        curve = measure_reliability(labels, probabilities)
        error = bootstrap.estimate(curve.error, resampled[when][:, column], known)
        curves[when], metrics[f"ece_{when}"] = curve, centred(error)
        metrics[f"brier_{when}"] = mean(squared_errors(labels, probabilities)[0], NO_IMAGE)
    return ClassCalibration(calibrator, curves["before"], curves["after"], metrics)


def _gain(before: Predictions, after: Predictions, bootstrap: PatientBootstrap) -> Estimate:
    known = before.known
    if not known.any():
        return Estimate.undefined(NO_IMAGE)
    old, new = (
        bootstrap.sum_by_patient(
            np.where(known, squared_errors(part.labels, part.probabilities)[0], 0)
        )
        for part in (before, after)
    )
    counts = bootstrap.sum_by_patient(known)  # (P, C)

    def change(drawn: Floats) -> Floats:  # (r, P) -> (r, C)
        return divide(drawn @ (new - old), drawn @ counts)

    value = float(np.nanmean(change(np.ones((1, len(counts))))))
    return bootstrap.estimate(Estimate(value), mean_over_classes(bootstrap.resample(change)))
