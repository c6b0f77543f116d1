"""What differs between two finished runs, and whether the difference is chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.evaluation.audit.estimates import PatientDraws
from cxrmodel.evaluation.bootstrap import Resamples, resample_patients
from cxrmodel.evaluation.evaluate import HEADLINE_METRICS
from cxrmodel.evaluation.intervals import (
    MIN_PATIENTS,
    NUM_RESAMPLES,
    Difference,
    mean_over_classes,
    percentile_interval,
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
        macro: Differences in the macro averages, by metric.
        auroc: Differences in AUROC, by pathology.
        l1: Difference in reconstruction error.
    """

    run: FinishedRun
    is_same: bool
    unpaired: str
    macro: dict[str, Difference]
    auroc: dict[str, Difference]
    l1: Difference

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
    drawn = [] if unpaired else [_resample(run, seed) for run in (first, other)]
    macro = {
        metric: _difference(
            *(run.metrics["classifier"][f"macro_{metric}"] for run in (first, other)),
            *(mean_over_classes(getattr(resamples, metric)) for resamples in drawn),
        )
        for metric in HEADLINE_METRICS
    }
    entries = [run.metrics["classifier"]["per_class"] for run in (first, other)]
    columns = {name: column for column, name in enumerate(_pathologies(first.judged))}
    auroc = {
        name: _difference(
            *(entry[name]["auroc"] for entry in entries),
            *(resamples.auroc[:, columns[name]] for resamples in drawn),
        )
        for name in entries[0]
        if name in entries[1]
    }
    is_same = first.metrics == other.metrics and first.judged.equals(other.judged)
    l1 = _compare_l1(first, other, not unpaired, seed)
    return ComparedRun(other, is_same, unpaired, macro, auroc, l1)


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


def _resample(run: FinishedRun, seed: int) -> Resamples:
    entries = run.metrics["classifier"]["per_class"]
    test = to_predictions(run.judged)
    found = [entries[name]["threshold"] for name in test.pathologies]
    thresholds = np.array([np.nan if value is None else value for value in found])
    return resample_patients(test, thresholds, num_resamples=NUM_RESAMPLES, seed=seed)


def _difference(
    one: float | None, two: float | None, *resamples: NDArray[np.float64]
) -> Difference:
    if one is None or two is None:
        return Difference(None, None)
    bounds = percentile_interval(resamples[1] - resamples[0]) if resamples else None
    return Difference(two - one, bounds)


def _compare_l1(first: FinishedRun, other: FinishedRun, is_paired: bool, seed: int) -> Difference:
    one, two = (run.metrics["vae"]["test_l1"] for run in (first, other))
    if not is_paired:
        return _difference(one, two)
    change = (other.judged["l1"].to_numpy() - first.judged["l1"].to_numpy()).astype(np.float64)
    draws = PatientDraws(to_predictions(first.judged).patients, seed=seed)
    mean = draws.mean(change, np.ones(len(change), dtype=bool), "no test image")
    return Difference(mean.value, mean.interval)
