"""What differs between two finished runs, and whether the difference is chance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.evaluation.metrics import HEADLINE_METRICS, resample_metrics, score_class
from cxrmodel.evaluation.patient_bootstrap import (
    MIN_PATIENTS,
    Estimate,
    Floats,
    PatientBootstrap,
    difference,
    few_patients,
    macro,
    mean_over_classes,
)
from cxrmodel.report.comparison.finished_run import LABEL_PREFIX, FinishedRun
from cxrmodel.report.prose import names_of, number, plural

NO_THRESHOLD = Estimate.undefined("no positive image in validation")

Scores = dict[str, Estimate]


@dataclass(frozen=True)
class SharedImages:
    """The test images by which two runs can be judged together.

    An image counts if it is in the test part of both, with the same patient and labels, and neither
    run has an image of that patient in train or validation.

    Attributes:
        first: The first run with these images alone.
        other: The other run with these images alone, in the same order.
        sentence: Which images they are; empty where they are all test images of both runs.
        problem: Why they are too few to tell anything; empty where they are not.
    """

    first: FinishedRun
    other: FinishedRun
    sentence: str = ""
    problem: str = ""


@dataclass(frozen=True)
class ComparedRun:
    """A run beside the first one.

    Attributes:
        run: The run.
        is_same: Whether all numbers of both are the same.
        unpaired: Why there are no intervals; empty where the runs share test images.
        basis: Which test images the differences are over, and both scores there; empty where they
            are over all test images of both runs, or each run's own.
        macro: Differences in the macro averages, by metric.
        auroc: Differences in AUROC, by pathology.
        l1: Difference in reconstruction error.
    """

    run: FinishedRun
    is_same: bool
    unpaired: str
    basis: str
    macro: Scores
    auroc: Scores
    l1: Estimate


def compare_runs(first: FinishedRun, other: FinishedRun, *, seed: int = 0) -> ComparedRun:
    """Return the other run's numbers less the first one's, paired where they share test images.

    Args:
        first: What is compared with.
        other: What is compared.
        seed: Seed of the bootstrap.
    """
    shared = share_test_images(first, other)
    if shared.problem:
        bootstrap = None
        scores = [reported_scores(run) for run in (first, other)]
    else:
        bootstrap = PatientBootstrap(shared.first.predictions.patients, seed=seed)
        scores = [
            resampled_scores(
                run, bootstrap, _scored(run) if shared.sentence else reported_scores(run)
            )
            for run in (shared.first, shared.other)
        ]
    (macros, aurocs), (its_macros, its_aurocs) = scores
    return ComparedRun(
        run=other,
        is_same=first.metrics == other.metrics and first.table.equals(other.table),
        unpaired=shared.problem,
        basis=_basis(shared, macros["auroc"], its_macros["auroc"]),
        macro=_changes(macros, its_macros, bootstrap),
        auroc=_changes(aurocs, its_aurocs, bootstrap),
        l1=_change_of_l1(shared.first, shared.other, bootstrap),
    )


def share_test_images(first: FinishedRun, other: FinishedRun) -> SharedImages:
    """Return the test images by which two runs can be judged together, and how many they are."""
    one, two = (run.predictions.pathologies for run in (first, other))
    if set(one) != set(two):
        unlike = names_of(sorted(set(one) ^ set(two)))
        return SharedImages(first, other, problem=f"Only one of them has {unlike}")
    both = first.table[["image"]].merge(other.table[["image"]], on="image")["image"]
    rows, its_rows = (run.table.set_index("image").loc[both] for run in (first, other))
    columns = ["patient_id", *(LABEL_PREFIX + name for name in one)]
    same = equal_rows(rows[columns], its_rows[columns])
    unseen = _unseen(first, rows) & _unseen(other, its_rows)
    images = both[same & unseen]
    counts = [
        ("of another patient or with other labels in one of them", int((~same).sum())),
        ("of a patient in train or validation of one of them", int((same & ~unseen).sum())),
    ]
    left_out = "".join(f", without {count:,} {why}" for why, count in counts if count)
    whole = len(images) == len(first.table) == len(other.table)
    known = first.parts is not None and other.parts is not None
    sentence = "" if whole else f"{plural(len(images), 'test image')} that both share{left_out}"
    problem = ""
    if not whole and not known:
        problem = (
            "The test images or their labels are not the same, and a report of an older version "
            "of the package does not say what its run was trained on"
        )
    elif rows["patient_id"][(same & unseen)].nunique() < MIN_PATIENTS:
        problem = f"There are fewer than {MIN_PATIENTS} test patients that both share{left_out}"
    if problem:
        return SharedImages(first, other, problem=problem)
    return SharedImages(first.only(images), other.only(images), sentence)


def equal_rows(one: pd.DataFrame, two: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell which rows of two tables are the same; what both do not know is the same."""
    equal = (one == two) | (one.isna() & two.isna())
    return equal.all(axis="columns").to_numpy(dtype=bool)


def _unseen(run: FinishedRun, rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell of which images the run has neither the image nor the patient in train or validation."""
    if run.parts is None:
        return np.ones(len(rows), dtype=bool)
    seen = run.parts[run.parts["split"] != "test"]
    patients = rows["patient_id"].astype("str").isin(seen["patient_id"])
    return ~(patients.to_numpy() | rows.index.isin(seen["image"]))


def _basis(shared: SharedImages, first: Estimate, other: Estimate) -> str:
    if not shared.sentence:
        return ""
    warning = few_patients(shared.first.table["patient_id"].nunique())
    doubt = f" ({warning})" if warning else ""
    return (
        f"over the {shared.sentence}{doubt}, macro AUROC is {number(other.value)} against "
        f"{number(first.value)}"
    )


def reported_scores(run: FinishedRun) -> tuple[Scores, Scores]:
    """Return the scores of the report: macro averages by metric, and AUROC by pathology."""
    numbers = run.metrics["classifier"]
    return (
        {metric: Estimate(numbers[f"macro_{metric}"]) for metric in HEADLINE_METRICS},
        {name: Estimate(entry["auroc"]) for name, entry in numbers["per_class"].items()},
    )


def _scored(run: FinishedRun) -> tuple[Scores, Scores]:
    """Return the same scores of the run's images as they are now, with the report's thresholds."""
    test = run.predictions
    thresholds = [NO_THRESHOLD if np.isnan(limit) else Estimate(limit) for limit in _limits(run)]
    scores = {
        name: score_class(*test.of_class(column)[:2], thresholds[column])
        for column, name in enumerate(test.pathologies)
    }
    return (
        {name: macro([each[name] for each in scores.values()]) for name in HEADLINE_METRICS},
        {name: each["auroc"] for name, each in scores.items()},
    )


def _limits(run: FinishedRun) -> Floats:
    """Return the (C,) thresholds of the report, NaN where undefined."""
    entries = run.metrics["classifier"]["per_class"]
    names = run.predictions.pathologies
    return np.array([entries[name]["threshold"] for name in names], dtype=np.float64)


def resampled_scores(
    run: FinishedRun, bootstrap: PatientBootstrap, scores: tuple[Scores, Scores]
) -> tuple[Scores, Scores]:
    """Return the scores with their resamples."""
    macros, aurocs = scores
    resampled = resample_metrics(run.predictions, _limits(run), bootstrap)
    columns = {name: column for column, name in enumerate(run.predictions.pathologies)}
    return (
        {
            metric: replace(found, resamples=mean_over_classes(resampled[metric]))
            for metric, found in macros.items()
        },
        {
            name: replace(found, resamples=resampled["auroc"][:, columns[name]])
            for name, found in aurocs.items()
        },
    )


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
