"""What differs between two finished runs, and whether the difference is chance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cxrmodel.evaluation.metrics import HEADLINE_METRICS, resample_metrics
from cxrmodel.evaluation.patient_bootstrap import (
    MIN_PATIENTS,
    Estimate,
    PatientBootstrap,
    difference,
    mean_over_classes,
)
from cxrmodel.report.comparison.finished_run import (
    LABEL_PREFIX,
    FinishedRun,
    to_predictions,
)
from cxrmodel.report.prose import names_of


@dataclass(frozen=True)
class ComparedRun:
    """A run beside the first one.

    Attributes:
        run: The run.
        is_same: Whether all numbers of both are the same.
        unpaired: Why there are no intervals; empty where both were judged on the same images with
            the same labels.
        macro: Estimates in the macro averages, by metric.
        auroc: Estimates in AUROC, by pathology.
        l1: Estimate in reconstruction error.
    """

    run: FinishedRun
    is_same: bool
    unpaired: str
    macro: dict[str, Estimate]
    auroc: dict[str, Estimate]
    l1: Estimate

    @property
    def is_paired(self) -> bool:
        """Whether both were judged on the same images with the same labels."""
        return not self.unpaired


def compare_runs(first: FinishedRun, other: FinishedRun, *, seed: int = 0) -> ComparedRun:
    """Return the other run's numbers less the first one's, paired where that is possible.

    Args:
        first: What is compared with.
        other: What is compared.
        seed: Seed of the bootstrap.
    """
    unpaired = _unpaired(first.judged, other.judged)
    patients = to_predictions(first.judged).patients
    bootstrap = None if unpaired else PatientBootstrap(patients, seed=seed)
    (macro, auroc), (its_macro, its_auroc) = (_scores_of(run, bootstrap) for run in (first, other))
    return ComparedRun(
        other,
        first.metrics == other.metrics and first.judged.equals(other.judged),
        unpaired,
        _changes(macro, its_macro, bootstrap),
        _changes(auroc, its_auroc, bootstrap),
        _change_of_l1(first, other, bootstrap),
    )


def _pathologies(judged: pd.DataFrame) -> list[str]:
    return list(to_predictions(judged).pathologies)


def _unpaired(one: pd.DataFrame, two: pd.DataFrame) -> str:
    """Say why there is no interval of a difference; nothing where there is one."""
    names = [_pathologies(judged) for judged in (one, two)]
    if set(names[0]) != set(names[1]):
        return f"Only one of them has {names_of(sorted(set(names[0]) ^ set(names[1])))}"
    columns = ["image", "patient_id", *(LABEL_PREFIX + name for name in names[0])]
    if names[0] != names[1] or not one[columns].equals(two[columns]):
        return "The test images or their labels are not the same"
    if one["patient_id"].nunique() < MIN_PATIENTS:
        return f"There are fewer than {MIN_PATIENTS} test patients"
    return ""


def _scores_of(
    run: FinishedRun, bootstrap: PatientBootstrap | None
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Return macro scores by metric and AUROC by pathology, resampled where runs are paired."""
    numbers = run.metrics["classifier"]
    entries = numbers["per_class"]
    macro = {metric: Estimate(numbers[f"macro_{metric}"]) for metric in HEADLINE_METRICS}
    auroc = {name: Estimate(entry["auroc"]) for name, entry in entries.items()}
    if bootstrap is None:
        return macro, auroc
    test = to_predictions(run.judged)
    limits = np.array([entries[name]["threshold"] for name in test.pathologies], dtype=np.float64)
    resampled = resample_metrics(test, limits, bootstrap)  # an undefined threshold is NaN now
    for metric, found in macro.items():
        macro[metric] = replace(found, resamples=mean_over_classes(resampled[metric]))
    for column, name in enumerate(test.pathologies):
        auroc[name] = replace(auroc[name], resamples=resampled["auroc"][:, column])
    return macro, auroc


def _changes(
    first: dict[str, Estimate], other: dict[str, Estimate], bootstrap: PatientBootstrap | None
) -> dict[str, Estimate]:
    subtract = difference if bootstrap is None else bootstrap.difference
    return {name: subtract(other[name], one) for name, one in first.items() if name in other}


def _change_of_l1(
    first: FinishedRun, other: FinishedRun, bootstrap: PatientBootstrap | None
) -> Estimate:
    if bootstrap is None:
        one, two = (Estimate(run.metrics["vae"]["test_l1"]) for run in (first, other))
        return difference(two, one)
    change = (other.judged["l1"].to_numpy() - first.judged["l1"].to_numpy()).astype(np.float64)
    return bootstrap.mean(change, np.ones(len(change), dtype=bool), "no test image")
