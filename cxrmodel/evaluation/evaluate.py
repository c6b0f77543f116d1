"""All scores of one set of predictions: of each class and on average, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from cxrmodel.evaluation.metrics import (
    METRICS,
    limit_of,
    prevalence,
    resample_metrics,
    score_class,
)
from cxrmodel.evaluation.patient_bootstrap import (
    Estimate,
    Floats,
    PatientBootstrap,
    few_patients,
)
from cxrmodel.evaluation.predictions import Predictions

ROUNDING = 1e-12  # of F1: equals are equal, whichever way they were computed
NO_POSITIVE_IN_VALIDATION = "no positive image in validation"


@dataclass(frozen=True)
class ClassEvaluation:
    """One pathology on the test images.

    Attributes:
        metrics: By name: those of `METRICS`, and without an interval `threshold` and `prevalence`.
        num_labelled: Test images whose label is known; scores rest on these.
        num_positive: Positive test images.
        num_positive_patients: Patients that have them.
        warning: Why not to trust the intervals, if so.
    """

    metrics: dict[str, Estimate]
    num_labelled: int
    num_positive: int
    num_positive_patients: int
    warning: str | None


@dataclass(frozen=True)
class Evaluation:
    """A model on the test images, with thresholds from the validation images.

    Attributes:
        per_class: By pathology.
        macro: Unweighted means over the classes that define them, by name in `METRICS`.
        num_classes: How many classes each mean is over.
    """

    per_class: dict[str, ClassEvaluation]
    macro: dict[str, Estimate]
    num_classes: dict[str, int]


def evaluate(validation: Predictions, test: Predictions, bootstrap: PatientBootstrap) -> Evaluation:
    """Choose thresholds on validation, then judge the test images once.

    Args:
        validation: Only its thresholds are used.
        test: What is judged.
        bootstrap: Of the test images; evaluations with the same one are paired.
    """
    return evaluate_at(fit_thresholds(validation), test, bootstrap)


def evaluate_at(
    thresholds: dict[str, Estimate], test: Predictions, bootstrap: PatientBootstrap
) -> Evaluation:
    """Judge images once, at given thresholds.

    Args:
        thresholds: By pathology, in the order of the predictions.
        test: What is judged.
        bootstrap: Of the same images; evaluations with the same one are paired.
    """
    limits = np.array([limit_of(threshold) for threshold in thresholds.values()])
    resampled = resample_metrics(test, limits, bootstrap)
    per_class = {
        name: _evaluate_class(test, column, thresholds[name], resampled, bootstrap)
        for column, name in enumerate(test.pathologies)
    }
    by_metric = {name: [entry.metrics[name] for entry in per_class.values()] for name in METRICS}
    return Evaluation(
        per_class,
        {name: bootstrap.macro(scores, resampled[name]) for name, scores in by_metric.items()},
        {name: sum(s.value is not None for s in scores) for name, scores in by_metric.items()},
    )


def _evaluate_class(
    test: Predictions, column: int, threshold: Estimate, resampled: dict[str, Floats],
    bootstrap: PatientBootstrap,
) -> ClassEvaluation:  # fmt: skip
    labels, probabilities, known = test.of_class(column)
    scores = score_class(labels, probabilities, threshold)
    metrics = {
        name: bootstrap.estimate(scores[name], resampled[name][:, column], known)
        for name in METRICS
    }
    num_positive = int(labels.sum())
    num_patients = len(np.unique(test.patients[known][labels == 1]))
    return ClassEvaluation(
        metrics | {"threshold": threshold, "prevalence": prevalence(labels)},
        len(labels),
        num_positive,
        num_patients,
        few_patients(num_patients, num_positive),
    )


def fit_thresholds(validation: Predictions) -> dict[str, Estimate]:
    """Return a threshold per pathology, from validation images alone."""
    return {
        name: best_threshold(*validation.of_class(column)[:2])
        for column, name in enumerate(validation.pathologies)
    }


def best_threshold(labels: NDArray[np.uint8], probabilities: Floats) -> Estimate:
    """Return the threshold with the highest F1, positive from the threshold upwards.

    Only observed probabilities are candidates; of equals, the highest is taken.

    Args:
        labels: (N,), 0 or 1, of the validation images whose label is known.
        probabilities: (N,), in [0, 1].
    """
    if not labels.any():
        return Estimate.undefined(NO_POSITIVE_IN_VALIDATION)
    precision, recall, candidates = precision_recall_curve(labels, probabilities)
    # F1 without its 0 / 0: precision and recall are both 0 where nothing true is found.
    total = precision + recall
    scores = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    scores = scores[: len(candidates)]  # the last point of the curve has no threshold
    best = np.flatnonzero(scores >= scores.max() - ROUNDING)[-1]
    return Estimate(float(candidates[best]))
