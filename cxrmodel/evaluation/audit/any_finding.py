"""One score an image for whether anything is listed, and a threshold for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from cxrmodel.evaluation.metrics import Metric
from cxrmodel.evaluation.predictions import Predictions


def any_finding(predictions: Predictions) -> NDArray[np.uint8]:
    """Return (N,), 1 where a pathology is listed."""
    return np.asarray(predictions.labels.max(axis=1, initial=0))


def any_finding_score(predictions: Predictions) -> NDArray[np.float64]:
    """Return (N,), the probability of at least one pathology, were they independent."""
    return np.asarray(1 - (1 - predictions.probabilities).prod(axis=1))


def balanced_threshold(validation: Predictions) -> Metric:
    """Return the threshold with the highest sensitivity plus specificity on validation.

    Source: W. J. Youden, Index for rating diagnostic tests, Cancer 3 (1950).
    """
    labels = any_finding(validation)
    if not labels.any() or labels.all():
        return Metric.undefined("validation lacks images with or without a listed finding")
    false, true, candidates = roc_curve(labels, any_finding_score(validation))
    best = 1 + int(np.argmax((true - false)[1:]))  # the first candidate is infinite
    return Metric(float(candidates[best]))
