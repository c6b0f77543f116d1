"""All metrics of one set of predictions: a class each, on average, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrmodel.evaluation.bootstrap import Resamples, resample_patients
from cxrmodel.evaluation.intervals import (
    MIN_PATIENTS,
    NUM_RESAMPLES,
    Difference,
    Interval,
    few_positives,
    mean_over_classes,
    percentile_interval,
)
from cxrmodel.evaluation.metrics import (
    DEFAULT_THRESHOLD,
    Metric,
    auroc,
    average_precision,
    brier,
    f1,
    macro,
    prevalence,
    sensitivity,
    specificity,
)
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.evaluation.thresholds import fit_thresholds

__all__ = ["Difference", "Evaluation", "compare", "evaluate"]

HEADLINE_METRICS = ("auroc", "average_precision", "f1", "f1_at_0_5")
METRICS = (*HEADLINE_METRICS, "sensitivity", "specificity", "brier")


@dataclass(frozen=True)
class ClassEvaluation:
    """One pathology on the test images.

    Attributes:
        metrics: By name: those of `METRICS`, `threshold` and `prevalence`.
        intervals: 95 % intervals of those of `METRICS` that have one.
        num_positive: Positive test images.
        num_positive_patients: Patients that have them.
        warning: Why not to trust the intervals, if so.
    """

    metrics: dict[str, Metric]
    intervals: dict[str, Interval]
    num_positive: int
    num_positive_patients: int
    warning: str | None


@dataclass(frozen=True)
class Evaluation:
    """A model on the test images, with thresholds from the validation images.

    Attributes:
        per_class: By pathology.
        macro: Unweighted means over the classes that define them, by name in `METRICS`.
        intervals: 95 % intervals of those means.
        num_classes: Over how many classes each mean is.
        resamples: (R,) resampled means, by name in `METRICS`; NaN where undefined.
    """

    per_class: dict[str, ClassEvaluation]
    macro: dict[str, Metric]
    intervals: dict[str, Interval]
    num_classes: dict[str, int]
    resamples: dict[str, NDArray[np.float64]]


def evaluate(
    validation: Predictions, test: Predictions, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Evaluation:
    """Choose thresholds on validation, then judge the test images once.

    Args:
        validation: Only its thresholds are used.
        test: What is judged.
        num_resamples: Bootstrap draws of the test patients.
        seed: Seed of the draws; evaluations of the same images with one seed are paired.
    """
    thresholds = fit_thresholds(validation)
    limits = [np.nan if metric.value is None else metric.value for metric in thresholds.values()]
    resamples = resample_patients(test, np.array(limits), num_resamples=num_resamples, seed=seed)
    per_class = {
        name: _evaluate_class(test, column, thresholds[name], resamples)
        for column, name in enumerate(test.pathologies)
    }
    by_metric = {name: [entry.metrics[name] for entry in per_class.values()] for name in METRICS}
    means = {name: mean_over_classes(getattr(resamples, name)) for name in METRICS}
    averages = {name: macro(metrics) for name, metrics in by_metric.items()}
    return Evaluation(
        per_class,
        averages,
        _intervals(averages, means, test),
        {name: sum(m.value is not None for m in metrics) for name, metrics in by_metric.items()},
        means,
    )


def _evaluate_class(
    test: Predictions, column: int, threshold: Metric, resamples: Resamples
) -> ClassEvaluation:
    labels, probabilities = test.labels[:, column], test.probabilities[:, column]
    metrics = {
        "auroc": auroc(labels, probabilities),
        "average_precision": average_precision(labels, probabilities),
        "f1": f1(labels, probabilities, threshold),
        "f1_at_0_5": f1(labels, probabilities, Metric(DEFAULT_THRESHOLD)),
        "sensitivity": sensitivity(labels, probabilities, threshold),
        "specificity": specificity(labels, probabilities, threshold),
        "brier": brier(labels, probabilities),
        "threshold": threshold,
        "prevalence": prevalence(labels),
    }
    num_positive = int(labels.sum())
    num_patients = len(np.unique(test.patients[labels == 1]))
    of_class = {name: getattr(resamples, name)[:, column] for name in METRICS}
    return ClassEvaluation(
        metrics,
        _intervals(metrics, of_class, test),
        num_positive,
        num_patients,
        few_positives(num_positive, num_patients),
    )


def _intervals(
    metrics: dict[str, Metric], resamples: dict[str, NDArray[np.float64]], test: Predictions
) -> dict[str, Interval]:
    if len(np.unique(test.patients)) < MIN_PATIENTS:
        return {}  # one patient resampled is always the same patient
    found = {
        name: percentile_interval(values)
        for name, values in resamples.items()
        if metrics[name].value is not None
    }
    return {name: interval for name, interval in found.items() if interval is not None}


def compare(model: Evaluation, baseline: Evaluation, metric: str) -> Difference:
    """Compare two evaluations of the same test images, resampled with the same seed."""
    ours, theirs = model.macro[metric].value, baseline.macro[metric].value
    if ours is None or theirs is None:
        return Difference(None, None)
    if metric not in model.intervals:
        return Difference(ours - theirs, None)
    paired = model.resamples[metric] - baseline.resamples[metric]
    return Difference(ours - theirs, percentile_interval(paired))
