"""What differs between two finished runs, and whether the difference is chance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cxrmodel.evaluation.metrics import HEADLINE_METRICS, resample_metrics
from cxrmodel.evaluation.patient_bootstrap import (
    MIN_PATIENTS,
    Estimate,
    PatientBootstrap,
    difference,
    mean_over_classes,
)
from cxrmodel.report.comparison.finished_run import LABEL_PREFIX, FinishedRun
from cxrmodel.report.prose import names_of

Scores = dict[str, Estimate]


@dataclass(frozen=True)
class ComparedRun:
    """A run beside the first one.

    Attributes:
        run: The run.
        is_same: Whether all numbers of both are the same.
        unpaired: Why there are no intervals; empty where both were evaluated on the same images
            with the same labels.
        macro: Differences in the macro averages, by metric.
        auroc: Differences in AUROC, by pathology.
        l1: Difference in reconstruction error.
    """

    run: FinishedRun
    is_same: bool
    unpaired: str
    macro: Scores
    auroc: Scores
    l1: Estimate


def compare_runs(first: FinishedRun, other: FinishedRun, *, seed: int = 0) -> ComparedRun:
    """Return the other run's numbers less the first one's, paired where that is possible.

    Args:
        first: What is compared with.
        other: What is compared.
        seed: Seed of the bootstrap.
    """
    unpaired = _unpaired(first, other)
    bootstrap = None if unpaired else PatientBootstrap(first.predictions.patients, seed=seed)
    (macro, auroc), (its_macro, its_auroc) = (_scores_of(run, bootstrap) for run in (first, other))
    return ComparedRun(
        run=other,
        is_same=first.metrics == other.metrics and first.table.equals(other.table),
        unpaired=unpaired,
        macro=_changes(macro, its_macro, bootstrap),
        auroc=_changes(auroc, its_auroc, bootstrap),
        l1=_change_of_l1(first, other, bootstrap),
    )


def _unpaired(first: FinishedRun, other: FinishedRun) -> str:
    """Say why there is no interval of a difference; nothing where there is one."""
    one, two = (run.predictions.pathologies for run in (first, other))
    if set(one) != set(two):
        return f"Only one of them has {names_of(sorted(set(one) ^ set(two)))}"
    columns = ["image", "patient_id", *(LABEL_PREFIX + name for name in one)]
    if one != two or not first.table[columns].equals(other.table[columns]):
        return "The test images or their labels are not the same"
    if first.table["patient_id"].nunique() < MIN_PATIENTS:
        return f"There are fewer than {MIN_PATIENTS} test patients"
    return ""


def _scores_of(run: FinishedRun, bootstrap: PatientBootstrap | None) -> tuple[Scores, Scores]:
    """Return macro scores by metric and AUROC by pathology, resampled where runs are paired."""
    numbers = run.metrics["classifier"]
    entries = numbers["per_class"]
    macro = {metric: Estimate(numbers[f"macro_{metric}"]) for metric in HEADLINE_METRICS}
    auroc = {name: Estimate(entry["auroc"]) for name, entry in entries.items()}
    if bootstrap is None:
        return macro, auroc
    test = run.predictions
    limits = np.array([entries[name]["threshold"] for name in test.pathologies], dtype=np.float64)
    resampled = resample_metrics(test, limits, bootstrap)  # an undefined threshold is NaN now
    for metric, found in macro.items():
        macro[metric] = replace(found, resamples=mean_over_classes(resampled[metric]))
    for column, name in enumerate(test.pathologies):
        auroc[name] = replace(auroc[name], resamples=resampled["auroc"][:, column])
    return macro, auroc


def _changes(first: Scores, other: Scores, bootstrap: PatientBootstrap | None) -> Scores:
    subtract = difference if bootstrap is None else bootstrap.difference
    return {name: subtract(other[name], one) for name, one in first.items() if name in other}


def _change_of_l1(
    first: FinishedRun, other: FinishedRun, bootstrap: PatientBootstrap | None
) -> Estimate:
    if bootstrap is None:
        one, two = (Estimate(run.metrics["vae"]["test_l1"]) for run in (first, other))
        return difference(two, one)
    change = (other.table["l1"].to_numpy() - first.table["l1"].to_numpy()).astype(np.float64)
    return bootstrap.mean(change, np.ones(len(change), dtype=bool), "no test image")
