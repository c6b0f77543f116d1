"""Groups of test images by sex, age and view, and in which of them the classifier is worse.

Source: L. Seyyed-Kalantari et al., Underdiagnosis bias of artificial intelligence algorithms
applied to chest radiographs in under-served patient populations, Nature Medicine 27 (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from cxrmodel.evaluation.metrics import estimate_auroc, limit_of
from cxrmodel.evaluation.patient_bootstrap import Estimate, Floats, PatientBootstrap, Rows
from cxrmodel.evaluation.predictions import Predictions

AGE_BANDS = (18, 40, 65)
AGE_NAMES = ("under 18", "18 to 39", "40 to 64", "65 and over")
VISITS = (1, 5)
VISIT_NAMES = ("first image", "follow-up 1 to 4", "follow-up 5 and later")
SUBGROUPS = ("sex", "age", "view")
MIN_IMAGES = 30
EVERYONE = "all test images"
NOTHING_CLASSIFIED = "nothing is classified"

Strata = NDArray[np.object_]


def strata_of(images: pd.DataFrame) -> dict[str, Strata]:
    """Return the group of each image by kind; None where it is not known.

    Args:
        images: N rows with `age` (years), `sex`, `view` and `follow_up`, any of them missing.
    """
    return {
        "view": _names(images["view"]),
        "sex": _names(images["sex"]),
        "age": _banded(images["age"], AGE_BANDS, AGE_NAMES),
        "follow-up": _banded(images["follow_up"], VISITS, VISIT_NAMES),
    }


def subgroups(strata: dict[str, Strata]) -> dict[str, Rows]:
    """Return the members of each group of sex, age and view, and of each pair of them."""
    single = {kind: _members(strata[kind]) for kind in SUBGROUPS}
    groups = {name: rows for kind in SUBGROUPS for name, rows in single[kind].items()}
    for one, two in combinations(SUBGROUPS, 2):
        for first, rows in single[one].items():
            for second, others in single[two].items():
                groups[f"{first}, {second}"] = rows & others
    return groups


def _members(strata: Strata) -> dict[str, Rows]:
    return {name: np.asarray(strata == name) for name in levels_of(strata)}


def levels_of(strata: Strata) -> list[str]:
    """Return the names that occur, age bands from young to old."""
    ranks = {name: rank for rank, name in enumerate(AGE_NAMES)}
    found = {str(name) for name in strata if name is not None}
    return sorted(found, key=lambda name: (ranks.get(name, 0), name))


def _names(column: pd.Series) -> Strata:
    known = column.astype(object)
    return known.where(known.notna(), None).to_numpy(dtype=object)


def _banded(column: pd.Series, bounds: tuple[int, ...], names: tuple[str, ...]) -> Strata:
    values = pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
    banded = np.array(names, dtype=object)[
        np.searchsorted(bounds, values, side="right").clip(max=len(bounds))
    ]
    banded[np.isnan(values)] = None
    return np.asarray(banded)


def any_finding_score(predictions: Predictions) -> Floats:
    """Return (N,), the probability of at least one pathology if they were independent."""
    return np.asarray(1 - (1 - predictions.probabilities).prod(axis=1))


def balanced_threshold(validation: Predictions, abnormal: Floats) -> Estimate:
    """Return the threshold with the highest sensitivity plus specificity on validation.

    Source: W. J. Youden, Index for rating diagnostic tests, Cancer 3 (1950).

    Args:
        validation: N images.
        abnormal: (N,), 1 where a finding is listed, 0 where none is, NaN where nobody can know.
    """
    if not validation.pathologies:
        return Estimate.undefined(NOTHING_CLASSIFIED)
    known = ~np.isnan(abnormal)
    labels = abnormal[known].astype(np.uint8)
    if not labels.any() or labels.all():
        return Estimate.undefined("validation lacks images with or without a listed finding")
    false, true, candidates = roc_curve(labels, any_finding_score(validation)[known])
    best = 1 + int(np.argmax((true - false)[1:]))  # the first candidate is infinite
    return Estimate(float(candidates[best]))


@dataclass(frozen=True)
class Subgroup:
    """Any listed finding, in one group of test images.

    Attributes:
        num_images: Images.
        num_patients: Patients.
        num_abnormal: Images with a listed finding, where that is known.
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

    @property
    def is_told(self) -> bool:
        """Whether any of the scores is defined."""
        scores = (self.auroc, self.false_positive_rate, self.false_negative_rate)
        return any(score.value is not None for score in scores)


def evaluate_subgroups(
    test: Predictions, abnormal: Floats, groups: dict[str, Rows], threshold: Estimate,
    bootstrap: PatientBootstrap,
) -> dict[str, Subgroup]:  # fmt: skip
    """Judge every group of at least 30 images, and all images first; none without a label.

    Args:
        test: N images.
        abnormal: (N,), 1 where a finding is listed, 0 where none is, NaN where nobody can know.
        groups: Members of each, (N,).
        threshold: Of the score for any listed finding, from validation.
        bootstrap: Of the same images.
    """
    if not test.pathologies:
        return {}
    scores = any_finding_score(test)
    everyone = {EVERYONE: np.ones(test.num_images, dtype=bool)} if test.num_images else {}
    large = {name: rows for name, rows in groups.items() if rows.sum() >= MIN_IMAGES}
    return {
        name: _evaluate(test, abnormal, scores, rows, threshold, bootstrap)
        for name, rows in (everyone | large).items()
    }


def _evaluate(
    test: Predictions,
    labels: Floats,
    scores: Floats,
    rows: Rows,
    threshold: Estimate,
    bootstrap: PatientBootstrap,
) -> Subgroup:
    called = (scores >= limit_of(threshold)).astype(np.float64)
    is_undefined = threshold.value is None
    judged = np.zeros(len(rows), dtype=bool) if is_undefined else rows
    reason = f"no threshold: {threshold.reason}" if is_undefined else "no such image"
    return Subgroup(
        int(rows.sum()),
        len(np.unique(test.patients[rows])),
        int((labels[rows] == 1).sum()),
        estimate_auroc(bootstrap, labels, scores, rows),
        bootstrap.mean(called, judged & (labels == 0), reason),
        bootstrap.mean(1 - called, judged & (labels == 1), reason),
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
