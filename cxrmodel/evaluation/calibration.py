"""How far probabilities can be taken at their word, and Platt scaling that mends what it can."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from cxrmodel.evaluation.bootstrap import draw_patients
from cxrmodel.evaluation.intervals import (
    MIN_PATIENTS,
    NUM_RESAMPLES,
    Difference,
    Interval,
    mean_over_classes,
    percentile_interval,
)
from cxrmodel.evaluation.metrics import Metric, brier, macro
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.evaluation.reliability import (
    Reliability,
    centred_interval,
    measure_reliability,
    resample_errors,
)
from cxrmodel.evaluation.tallies import Ratio, squared_errors
from cxrmodel.evaluation.thresholds import NO_POSITIVE_IN_VALIDATION
from cxrmodel.models.classifier import fit_platt_scaling, platt_targets

CERTAIN = 1e-6  # probabilities are kept so far from 0 and 1, where the logit is infinite
NO_NEGATIVE_IN_VALIDATION = "no negative image in validation"


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
    slope, intercept = fit_platt_scaling(labels, _logit(probabilities))
    if slope < 0:  # it would turn the order of the images round
        return Calibrator(0.0, float(logit(platt_targets(labels).mean())))
    return Calibrator(slope, intercept)


def fit_calibrators(validation: Predictions) -> dict[str, Calibrator]:
    """Return a calibrator a pathology, from validation images alone."""
    return {
        name: fit_calibrator(validation.labels[:, column], validation.probabilities[:, column])
        for column, name in enumerate(validation.pathologies)
    }


@dataclass(frozen=True)
class ClassCalibration:
    """One pathology on test, before and after scaling; alike where it could not be fitted.

    Attributes:
        intervals: 95 % intervals of `ece_before` and `ece_after`, if there are any.
    """

    calibrator: Calibrator
    before: Reliability
    after: Reliability
    brier_before: Metric
    brier_after: Metric
    intervals: dict[str, Interval]


@dataclass(frozen=True)
class Calibration:
    """A model's probabilities on test.

    Attributes:
        per_class: By pathology.
        macro: Unweighted means: `ece_before`, `ece_after`, `brier_before`, `brier_after`.
        intervals: 95 % intervals of those means, if there are any.
        gain: Macro Brier score after less before, paired; `lower` says that scaling helps, so that
            the probabilities as they are were miscalibrated.
    """

    per_class: dict[str, ClassCalibration]
    macro: dict[str, Metric]
    intervals: dict[str, Interval]
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
    resampled = _resample(test, calibrated, num_resamples, seed)
    per_class = {
        name: _evaluate_class(test, calibrated, column, calibrators[name], resampled)
        for column, name in enumerate(test.pathologies)
    }
    entries = list(per_class.values())
    means = {
        "ece_before": macro([entry.before.error for entry in entries]),
        "ece_after": macro([entry.after.error for entry in entries]),
        "brier_before": macro([entry.brier_before for entry in entries]),
        "brier_after": macro([entry.brier_after for entry in entries]),
    }
    intervals = _intervals(means, {n: mean_over_classes(v) for n, v in resampled.items()})
    return Calibration(per_class, means, intervals, _gain(test, calibrated, num_resamples, seed))


def _resample(
    test: Predictions, calibrated: Predictions, num_resamples: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Return (R, C) calibration errors before and after; none of fewer than two patients."""
    if len(np.unique(test.patients)) < MIN_PATIENTS:
        return {}
    both = {"ece_before": test, "ece_after": calibrated}
    return {
        name: resample_errors(predictions, num_resamples=num_resamples, seed=seed)
        for name, predictions in both.items()
    }


def _intervals(
    metrics: dict[str, Metric], resampled: dict[str, NDArray[np.float64]]
) -> dict[str, Interval]:
    found = {
        name: centred_interval(values, value)
        for name, values in resampled.items()
        if (value := metrics[name].value) is not None
    }
    return {name: interval for name, interval in found.items() if interval is not None}


def _evaluate_class(
    test: Predictions, calibrated: Predictions, column: int, calibrator: Calibrator,
    resampled: dict[str, NDArray[np.float64]],
) -> ClassCalibration:  # fmt: skip
    labels = test.labels[:, column]
    before, after = test.probabilities[:, column], calibrated.probabilities[:, column]
    curves = measure_reliability(labels, before), measure_reliability(labels, after)
    errors = {"ece_before": curves[0].error, "ece_after": curves[1].error}
    own = {name: values[:, column] for name, values in resampled.items()}
    return ClassCalibration(
        calibrator,
        *curves,
        brier(labels, before),
        brier(labels, after),
        _intervals(errors, own),
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
