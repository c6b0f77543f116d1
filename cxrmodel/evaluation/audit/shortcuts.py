"""Whether a score comes from the lungs, or from the view, age, sex and number of visits.

Source: H. Janes, M. Pepe, Adjusting for covariates in studies of diagnostic, screening, or
prognostic markers, Am. J. Epidemiol. 168 (2008): the AUROC over pairs of the same stratum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cxrmodel.evaluation.audit.subgroups import Strata, levels_of
from cxrmodel.evaluation.metrics import estimate_auroc
from cxrmodel.evaluation.patient_bootstrap import (
    Estimate,
    Floats,
    PatientBootstrap,
    Rows,
    divide,
)
from cxrmodel.evaluation.predictions import Predictions

NOTABLE_DROP = 0.03  # of AUROC; less is not worth a warning


@dataclass(frozen=True)
class Shortcut:
    """What the macro AUROC owes to a covariate.

    Attributes:
        pooled: Over all pairs of images whose covariate is known.
        within: Over pairs of images of the same stratum.
        drop: `pooled` minus `within`, paired.
        by_stratum: Macro AUROC of each stratum alone.
        alone: AUROC of the covariate alone for any listed finding.
    """

    pooled: Estimate
    within: Estimate
    drop: Estimate
    by_stratum: dict[str, Estimate]
    alone: Estimate

    @property
    def is_notable(self) -> bool:
        """Whether so much of the score is owed to the covariate that it deserves a warning."""
        value, interval = self.drop.value, self.drop.interval
        if value is None or interval is None:
            return False
        return value > NOTABLE_DROP and interval[0] > 0


def measure_shortcut(
    test: Predictions, abnormal: Floats, strata: Strata, rates: dict[str, float],
    bootstrap: PatientBootstrap,
) -> Shortcut:  # fmt: skip
    """Compare the score over all pairs of images with that over pairs of the same stratum.

    Args:
        test: N images.
        abnormal: (N,), 1 where a finding is listed, 0 where none is, NaN where nobody can know.
        strata: (N,), None where unknown.
        rates: Share of images with a listed finding in train, by stratum.
        bootstrap: Of the test images.
    """
    members = {name: np.asarray(strata == name) for name in levels_of(strata)}
    known = np.asarray([name is not None for name in strata], dtype=bool)
    pooled = _aurocs(test, known, bootstrap)
    parts = {name: _aurocs(test, rows, bootstrap) for name, rows in members.items()}
    within = [
        _within(test.labels[:, column], members, own, bootstrap)
        for column, own in enumerate(_by_class(parts, len(pooled)))
    ]
    change = [
        bootstrap.difference(one, two, "undefined within strata")
        for one, two in zip(pooled, within, strict=True)
    ]
    scores = np.array([rates.get(str(name), 0.0) for name in strata], dtype=np.float64)
    return Shortcut(
        bootstrap.macro_of(pooled),
        bootstrap.macro_of(within),
        bootstrap.macro_of(change),
        {name: bootstrap.macro_of(classes) for name, classes in parts.items()},
        estimate_auroc(bootstrap, abnormal, scores, known),
    )


def _aurocs(test: Predictions, members: Rows, bootstrap: PatientBootstrap) -> list[Estimate]:
    return [
        estimate_auroc(bootstrap, labels, probabilities, members)
        for labels, probabilities in zip(test.labels.T, test.probabilities.T, strict=True)
    ]


def _by_class(parts: dict[str, list[Estimate]], num_classes: int) -> list[dict[str, Estimate]]:
    """Turn estimates by stratum and class into estimates by class and stratum, the defined ones."""
    return [
        {name: own[column] for name, own in parts.items() if own[column].value is not None}
        for column in range(num_classes)
    ]


def _within(
    labels: Floats, members: dict[str, Rows], defined: dict[str, Estimate],
    bootstrap: PatientBootstrap,
) -> Estimate:  # fmt: skip
    """Average the strata, weighted by their numbers of pairs."""
    if not defined:
        return Estimate.undefined("no stratum has both classes")
    own = [labels[members[name]] for name in defined]
    pairs = np.array([float((part == 1).sum()) * (part == 0).sum() for part in own])
    values = np.array([estimate.value for estimate in defined.values()], dtype=np.float64)
    resamples = np.stack([estimate.resamples for estimate in defined.values()])  # (strata, R)
    weights = np.where(np.isnan(resamples), 0.0, pairs[:, None])
    weighted = divide((np.nan_to_num(resamples) * weights).sum(axis=0), weights.sum(axis=0))
    return bootstrap.estimate(Estimate(float(np.average(values, weights=pairs))), weighted)
