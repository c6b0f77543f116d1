"""Platt scaling: the logit of one class times a slope, plus an intercept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression


def platt_targets(labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return what to fit instead of 0 and 1: a little less extreme, the fewer images there are."""
    num_positive = int(labels.sum())
    num_negative = len(labels) - num_positive
    return np.where(labels == 1, (num_positive + 1) / (num_positive + 2), 1 / (num_negative + 2))


def fit_platt_scaling(
    labels: NDArray[np.uint8], logits: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the slope and the intercept of one class that have the highest likelihood.

    Source: J. Platt, Probabilistic outputs for support vector machines, 1999, also of the targets.

    Args:
        labels: (N,), 0 or 1, both of them present.
        logits: (N,).
    """
    targets = platt_targets(labels)
    twice = np.tile(logits, 2)[:, None]
    both = np.repeat([1, 0], len(labels))
    model = LogisticRegression(C=np.inf)
    model.fit(twice, both, sample_weight=np.concatenate([targets, 1 - targets]))
    return float(model.coef_[0, 0]), float(model.intercept_[0])
