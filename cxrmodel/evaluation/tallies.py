"""Scores that are a ratio of two sums over images, added up by patient once for all resamples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrmodel.evaluation.predictions import Predictions


def ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide element by element; NaN where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def sum_by_patient(values: NDArray[np.generic], patients: NDArray[np.int64]) -> NDArray[np.float64]:
    """Add up (N, C) values over the images of each patient.

    Args:
        values: (N, C).
        patients: (N,), numbered from 0 upwards.

    Returns:
        (P, C).
    """
    sums = np.zeros((int(patients.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(sums, patients, values)
    return sums


@dataclass(frozen=True)
class Ratio:
    """One score of C classes; P patients.

    Attributes:
        part: (P, C), the numerator of each patient.
        whole: (P, C), the denominator.
    """

    part: NDArray[np.float64]
    whole: NDArray[np.float64]

    def resampled(self, patients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the (R, C) scores of R resamples; NaN where a resample cannot tell.

        Args:
            patients: (R, P), how often each patient was drawn.
        """
        return ratio(patients @ self.part, patients @ self.whole)


@dataclass(frozen=True)
class Counts:
    """Outcomes of calling images positive, by patient; each (P, C)."""

    true_positives: NDArray[np.float64]
    false_positives: NDArray[np.float64]
    positives: NDArray[np.float64]
    negatives: NDArray[np.float64]

    @classmethod
    def of(cls, predicted: NDArray[np.bool_], test: Predictions) -> Counts:
        """Count (N, C) calls against the labels."""
        positive = test.labels == 1
        arrays = (predicted & positive, predicted & ~positive, positive, ~positive)
        return cls(*(sum_by_patient(array, test.patients) for array in arrays))

    @property
    def sensitivity(self) -> Ratio:
        """Share of the positive images that are called positive."""
        return Ratio(self.true_positives, self.positives)

    @property
    def specificity(self) -> Ratio:
        """Share of the negative images that are called negative."""
        return Ratio(self.negatives - self.false_positives, self.negatives)

    def resampled_f1(self, patients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (R, C) of 2 TP / (called + labelled positives); NaN without a positive."""
        called = self.true_positives + self.false_positives
        scores = Ratio(2 * self.true_positives, called + self.positives).resampled(patients)
        return np.where(patients @ self.positives > 0, scores, np.nan)


def squared_errors(test: Predictions) -> Ratio:
    """Return the Brier score: the mean squared error of the probabilities."""
    errors = (test.probabilities - test.labels) ** 2
    return Ratio(
        sum_by_patient(errors, test.patients),
        sum_by_patient(np.ones_like(errors), test.patients),
    )
