"""For whom the classifier is worse.

Source: L. Seyyed-Kalantari et al., Underdiagnosis bias of artificial intelligence algorithms
applied to chest radiographs in under-served patient populations, Nature Medicine 27 (2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrmodel.evaluation.audit.any_finding import any_finding, any_finding_score
from cxrmodel.evaluation.audit.estimates import Estimate, PatientDraws, Rows
from cxrmodel.evaluation.metrics import Metric
from cxrmodel.evaluation.predictions import Predictions

MIN_IMAGES = 30
EVERYONE = "all test images"


@dataclass(frozen=True)
class Subgroup:
    """Any listed finding, in one group of test images.

    Attributes:
        num_images: Images.
        num_patients: Patients.
        num_abnormal: Images with a listed finding.
        auroc: Of the score for any listed finding.
        false_positive_rate: Share called abnormal of the images with no listed finding.
        false_negative_rate: Share called normal of those with one.
    """

    num_images: int
    num_patients: int
    num_abnormal: int
    auroc: Estimate
    false_positive_rate: Estimate
    false_negative_rate: Estimate


def evaluate_subgroups(
    test: Predictions, groups: dict[str, Rows], threshold: Metric, draws: PatientDraws
) -> dict[str, Subgroup]:
    """Judge every group of at least 30 images, and all images first.

    Args:
        test: N images.
        groups: Members of each, (N,).
        threshold: Of the score for any listed finding, from validation.
        draws: Resamples of the same images.
    """
    labels, scores = any_finding(test), any_finding_score(test)
    everyone = {EVERYONE: np.ones(test.num_images, dtype=bool)} if test.num_images else {}
    large = {name: rows for name, rows in groups.items() if rows.sum() >= MIN_IMAGES}
    return {
        name: _evaluate(test, labels, scores, rows, threshold, draws)
        for name, rows in (everyone | large).items()
    }


def _evaluate(
    test: Predictions,
    labels: NDArray[np.uint8],
    scores: NDArray[np.float64],
    rows: Rows,
    threshold: Metric,
    draws: PatientDraws,
) -> Subgroup:
    abnormal = labels == 1
    limit = np.nan if threshold.value is None else threshold.value
    called = (scores >= limit).astype(np.float64)
    none = np.zeros(len(rows), dtype=bool)
    judged = rows if threshold.value is not None else none
    reason = "no such image" if threshold.value is not None else f"no threshold: {threshold.reason}"
    return Subgroup(
        int(rows.sum()),
        len(np.unique(test.patients[rows])),
        int(labels[rows].sum()),
        draws.auroc(labels, scores, rows),
        draws.mean(called, judged & ~abnormal, reason),
        draws.mean(1 - called, judged & abnormal, reason),
    )


def worse_off(subgroups: dict[str, Subgroup]) -> list[str]:
    """Name the groups whose whole AUROC interval is below that of all test images."""
    everyone = subgroups.get(EVERYONE)
    if everyone is None or everyone.auroc.interval is None:
        return []
    floor = everyone.auroc.interval[0]
    return [
        name
        for name, group in subgroups.items()
        if group.auroc.interval is not None and group.auroc.interval[1] < floor
    ]
