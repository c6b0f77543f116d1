"""Per-class scores that are undefined, with a reason, where the data cannot tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

DEFAULT_THRESHOLD = 0.5

NO_IMAGE = "no image to judge by"
NO_POSITIVE = "no positive image in test"
NO_NEGATIVE = "no negative image in test"


@dataclass(frozen=True)
class Metric:
    """A number, or the reason why there is none.

    Attributes:
        value: The number; None where it is undefined.
        reason: Why it is undefined; None where it is not.
    """

    value: float | None
    reason: str | None = None

    @classmethod
    def undefined(cls, reason: str) -> Metric:
        """Return a metric without a value."""
        return cls(None, reason)


def auroc(labels: NDArray[np.uint8], probabilities: NDArray[np.float64]) -> Metric:
    """Area under the ROC curve of one class; undefined without both classes.

    Args:
        labels: (N,), 0 or 1.
        probabilities: (N,), any increasing function of the probability.
    """
    if not labels.any():
        return Metric.undefined(NO_POSITIVE)
    if labels.all():
        return Metric.undefined(NO_NEGATIVE)
    return Metric(float(roc_auc_score(labels, probabilities)))


def average_precision(labels: NDArray[np.uint8], probabilities: NDArray[np.float64]) -> Metric:
    """Mean precision over recall steps, without interpolation; undefined without a positive.

    Its chance level is the prevalence, so the two are read together.
    """
    if not labels.any():
        return Metric.undefined(NO_POSITIVE)
    return Metric(float(average_precision_score(labels, probabilities)))


def f1(labels: NDArray[np.uint8], probabilities: NDArray[np.float64], threshold: Metric) -> Metric:
    """F1 of one class, positive from the threshold upwards.

    Undefined without a positive image, or where the threshold itself is undefined.
    """
    if not labels.any():
        return Metric.undefined(NO_POSITIVE)
    if threshold.value is None:
        return Metric.undefined(f"no threshold: {threshold.reason}")
    predicted = probabilities >= threshold.value
    return Metric(float(f1_score(labels, predicted, zero_division=0.0)))


def sensitivity(
    labels: NDArray[np.uint8], probabilities: NDArray[np.float64], threshold: Metric
) -> Metric:
    """Share of positive images at or above the threshold; undefined as F1 is."""
    if not labels.any():
        return Metric.undefined(NO_POSITIVE)
    if threshold.value is None:
        return Metric.undefined(f"no threshold: {threshold.reason}")
    return Metric(float(np.mean(probabilities[labels == 1] >= threshold.value)))


def specificity(
    labels: NDArray[np.uint8], probabilities: NDArray[np.float64], threshold: Metric
) -> Metric:
    """Share of negative images below the threshold; undefined without one, or a threshold."""
    if labels.all():
        return Metric.undefined(NO_NEGATIVE if labels.size else NO_IMAGE)
    if threshold.value is None:
        return Metric.undefined(f"no threshold: {threshold.reason}")
    return Metric(float(np.mean(probabilities[labels == 0] < threshold.value)))


def brier(labels: NDArray[np.uint8], probabilities: NDArray[np.float64]) -> Metric:
    """Mean squared error of the probabilities.

    Source: G. W. Brier, Verification of forecasts expressed in terms of probability, Monthly
    Weather Review 78 (1950).
    """
    return mean((probabilities - labels) ** 2, NO_IMAGE)


def prevalence(labels: NDArray[np.uint8]) -> Metric:
    """Share of positive images."""
    return mean(labels.astype(np.float64), NO_IMAGE)


def mean(values: NDArray[np.float64], reason: str) -> Metric:
    """Mean of some numbers; undefined, for the given reason, where there are none."""
    return Metric(float(np.mean(values))) if values.size else Metric.undefined(reason)


def macro(metrics: list[Metric]) -> Metric:
    """Unweighted mean over the classes where the metric is defined."""
    defined = np.array([metric.value for metric in metrics if metric.value is not None])
    return mean(defined, "undefined for every class")
