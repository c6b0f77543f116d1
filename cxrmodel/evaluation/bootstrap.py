"""Resampling by patient with replacement, since images of one patient are not independent.

Source: C. A. Field, A. H. Welsh, Bootstrapping clustered data, J. R. Stat. Soc. B 69 (2007),
366-390: whole clusters are drawn with replacement, and every image comes with its patient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrmodel.evaluation.metrics import DEFAULT_THRESHOLD
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.evaluation.tallies import Counts, ratio, squared_errors

BLOCK = 32  # resamples at once: 32 x 16,818 float64 weights are 4 MiB


@dataclass(frozen=True)
class Resamples:
    """Metrics of R resamples for C classes; NaN where a resample cannot tell.

    Attributes:
        auroc: (R, C).
        average_precision: (R, C).
        f1: (R, C), at the given thresholds.
        f1_at_0_5: (R, C).
        sensitivity: (R, C), at the given thresholds.
        specificity: (R, C), at the given thresholds.
        brier: (R, C).
    """

    auroc: NDArray[np.float64]
    average_precision: NDArray[np.float64]
    f1: NDArray[np.float64]
    f1_at_0_5: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    specificity: NDArray[np.float64]
    brier: NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """The order of one class's scores, found once for all resamples.

    Attributes:
        positives, negatives: Rows of each kind, by increasing score.
        negatives_below, negatives_up_to: A positive's number of negatives with a lower score, and
            with a lower or equal one.
        positives_below: A positive's number of positives with a lower score.
    """

    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]
    negatives_below: NDArray[np.int64]
    negatives_up_to: NDArray[np.int64]
    positives_below: NDArray[np.int64]

    @classmethod
    def of(cls, labels: NDArray[np.uint8], scores: NDArray[np.float64]) -> Ranking:
        """Rank (N,) scores against (N,) labels."""
        order = np.argsort(scores, kind="stable")
        positives, negatives = order[labels[order] == 1], order[labels[order] == 0]
        own, other = scores[positives], scores[negatives]
        return cls(
            positives,
            negatives,
            np.searchsorted(other, own, side="left"),
            np.searchsorted(other, own, side="right"),
            np.searchsorted(own, own, side="left"),
        )

    def scores(
        self, weights: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the weighted AUROC and average precision of each resample.

        Args:
            weights: (R, N), how often a resample holds each image.

        Returns:
            Two arrays (R,); NaN where a resample lacks a class.
        """
        own = weights[:, self.positives]  # (R, P)
        negatives = _sums_below(weights[:, self.negatives])  # (R, N - P + 1)
        num_negative, num_positive = negatives[:, -1], own.sum(axis=1)
        below, up_to = negatives[:, self.negatives_below], negatives[:, self.negatives_up_to]
        pairs = (own * (below + up_to)).sum(axis=1) / 2  # a tie counts half
        false = num_negative[:, None] - below
        true = num_positive[:, None] - _sums_below(own)[:, self.positives_below]
        precision = ratio(true, true + false)  # where own is 0 it does not count
        return (
            ratio(pairs, num_positive * num_negative),
            ratio(np.nansum(own * precision, axis=1), num_positive),
        )


def _sums_below(values: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def draw_patients(
    num_patients: int, num_resamples: int, seed: int
) -> Iterator[NDArray[np.float64]]:
    """Draw patients with replacement, as many as there are.

    Yields:
        (up to `BLOCK`, P) arrays of how often each patient was drawn.
    """
    rng = np.random.default_rng(seed)
    if not num_patients:
        yield np.zeros((num_resamples, 0))
        return
    even = np.full(num_patients, 1 / num_patients)
    for start in range(0, num_resamples, BLOCK):
        size = min(BLOCK, num_resamples - start)
        yield rng.multinomial(num_patients, even, size=size).astype(np.float64)


def resample_patients(
    test: Predictions, thresholds: NDArray[np.float64], *, num_resamples: int, seed: int
) -> Resamples:
    """Compute the metrics of every resample; the same seed draws the same patients.

    Args:
        test: N images of C classes.
        thresholds: (C,), NaN where undefined.
        num_resamples: R.
        seed: Seed of the draw; two models judged with one seed can be compared in pairs.
    """
    rankings = [
        Ranking.of(test.labels[:, column], test.probabilities[:, column])
        for column in range(len(test.pathologies))
    ]
    tuned = Counts.of(test.probabilities >= thresholds, test)
    plain = Counts.of(test.probabilities >= DEFAULT_THRESHOLD, test)
    errors = squared_errors(test)
    blocks = []
    for patients in draw_patients(len(errors.part), num_resamples, seed):
        weights = patients[:, test.patients]  # (R, N)
        ranked = np.stack([ranking.scores(weights) for ranking in rankings], axis=-1)
        at_thresholds = (
            tuned.resampled_f1(patients),
            tuned.sensitivity.resampled(patients),
            tuned.specificity.resampled(patients),
        )
        f1, *rates = (np.where(np.isnan(thresholds), np.nan, values) for values in at_thresholds)
        rest = (f1, plain.resampled_f1(patients), *rates, errors.resampled(patients))
        blocks.append(np.stack([*ranked, *rest]))
    return Resamples(*np.concatenate(blocks, axis=1))
