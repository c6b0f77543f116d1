"""Decision thresholds, chosen on validation images and on no others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from cxrmodel.evaluation.metrics import Metric
from cxrmodel.evaluation.predictions import Predictions

ROUNDING = 1e-12  # of F1: equals are equal, whichever way they were computed
NO_POSITIVE_IN_VALIDATION = "no positive image in validation"


def best_threshold(labels: NDArray[np.uint8], probabilities: NDArray[np.float64]) -> Metric:
    """Return the threshold with the highest F1, positive from the threshold upwards.

    Only observed probabilities are candidates; of equals, the highest is taken.

    Args:
        labels: (N,), 0 or 1, of validation images.
        probabilities: (N,), in [0, 1].
    """
    if not labels.any():
        return Metric.undefined(NO_POSITIVE_IN_VALIDATION)
    precision, recall, candidates = precision_recall_curve(labels, probabilities)
    # F1 without its 0 / 0: precision and recall are both 0 where nothing true is found.
    total = precision + recall
    scores = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    scores = scores[: len(candidates)]  # the last point of the curve has no threshold
    best = np.flatnonzero(scores >= scores.max() - ROUNDING)[-1]
    return Metric(float(candidates[best]))


def fit_thresholds(validation: Predictions) -> dict[str, Metric]:
    """Return a threshold a pathology, from validation images alone."""
    return {
        name: best_threshold(validation.labels[:, column], validation.probabilities[:, column])
        for column, name in enumerate(validation.pathologies)
    }
