"""Whether a score is about the lungs, or about the patient, the view and the number of visits.

Source: H. Janes, M. Pepe, Adjusting for covariates in studies of diagnostic, screening, or
prognostic markers, Am. J. Epidemiol. 168 (2008): the AUROC over pairs of the same stratum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrmodel.evaluation.audit.estimates import Estimate, PatientDraws, Rows
from cxrmodel.evaluation.audit.strata import Strata, levels_of
from cxrmodel.evaluation.intervals import mean_over_classes
from cxrmodel.evaluation.metrics import Metric, macro
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.evaluation.tallies import ratio

NOTABLE_DROP = 0.03  # of AUROC; less is not worth a warning


@dataclass(frozen=True)
class Shortcut:
    """What the macro AUROC owes to a covariate.

    Attributes:
        pooled: Over all pairs of images whose covariate is known.
        within: Over pairs of images of the same stratum.
        drop: `pooled` less `within`, paired.
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
        """Whether a part of the score that is worth a warning is owed to the covariate."""
        value, interval = self.drop.value, self.drop.interval
        if value is None or interval is None:
            return False
        return value > NOTABLE_DROP and interval[0] > 0


def measure_shortcut(
    test: Predictions, strata: Strata, rates: dict[str, float], draws: PatientDraws
) -> Shortcut:
    """Compare the score over all pairs of images with that over pairs of the same stratum.

    Args:
        test: N images.
        strata: (N,), None where unknown.
        rates: Share of images with a listed finding in train, by stratum.
        draws: Resamples of the same images.
    """
    members = {name: np.asarray(strata == name) for name in levels_of(strata)}
    known = np.asarray([name is not None for name in strata], dtype=bool)
    columns = range(len(test.pathologies))
    pooled = [_auroc(test, column, known, draws) for column in columns]
    parts = {
        name: [_auroc(test, column, rows, draws) for column in columns]
        for name, rows in members.items()
    }
    within = [_within(test, column, members, parts, draws) for column in columns]
    pooled_macro, within_macro = _macro(pooled, draws), _macro(within, draws)
    change = [_difference(one, two, draws) for one, two in zip(pooled, within, strict=True)]
    scores = np.array([rates.get(str(name), 0.0) for name in strata], dtype=np.float64)
    labels = test.labels.max(axis=1, initial=0)
    return Shortcut(
        pooled_macro,
        within_macro,
        _macro(change, draws),
        {name: _macro(estimates, draws) for name, estimates in parts.items()},
        draws.auroc(labels, scores, known),
    )


def _auroc(test: Predictions, column: int, rows: Rows, draws: PatientDraws) -> Estimate:
    return draws.auroc(test.labels[:, column], test.probabilities[:, column], rows)


def _within(
    test: Predictions,
    column: int,
    members: dict[str, Rows],
    parts: dict[str, list[Estimate]],
    draws: PatientDraws,
) -> Estimate:
    """Average the strata by their numbers of pairs."""
    labels = test.labels[:, column]
    defined = [name for name in members if parts[name][column].value is not None]
    if not defined:
        return draws.combine(Metric.undefined("no stratum has both classes"), np.zeros(0))
    pairs = np.array([labels[members[n]].sum() * (1.0 - labels[members[n]]).sum() for n in defined])
    values = np.array([parts[name][column].value for name in defined], dtype=np.float64)
    resamples = np.stack([parts[name][column].resamples for name in defined])  # (strata, R)
    return draws.combine(
        Metric(float(np.average(values, weights=pairs))), _weighted(resamples, pairs)
    )


def _weighted(resamples: NDArray[np.float64], pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.where(np.isnan(resamples), 0.0, pairs[:, None])
    total = weights.sum(axis=0)
    sums = (np.nan_to_num(resamples) * weights).sum(axis=0)
    return ratio(sums, total)


def _difference(one: Estimate, two: Estimate, draws: PatientDraws) -> Estimate:
    if one.value is None or two.value is None:
        return draws.combine(Metric.undefined("undefined within strata"), np.zeros(0))
    return draws.combine(Metric(one.value - two.value), one.resamples - two.resamples)


def _macro(estimates: list[Estimate], draws: PatientDraws) -> Estimate:
    defined = [estimate for estimate in estimates if estimate.value is not None]
    metric = macro([estimate.metric for estimate in estimates])
    if not defined:
        return draws.combine(metric, np.zeros(0))
    stacked = np.stack([estimate.resamples for estimate in defined], axis=1)
    return draws.combine(metric, mean_over_classes(stacked))
