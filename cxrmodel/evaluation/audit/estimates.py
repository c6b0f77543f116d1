"""Scores of some of the test images, all from one draw of patients, so that they are paired."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrmodel.evaluation.bootstrap import BLOCK, Ranking, draw_patients
from cxrmodel.evaluation.intervals import (
    MIN_PATIENTS,
    NUM_RESAMPLES,
    Interval,
    percentile_interval,
)
from cxrmodel.evaluation.metrics import Metric, auroc, mean
from cxrmodel.evaluation.tallies import ratio

Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A score with its interval.

    Attributes:
        metric: The score, or the reason why there is none.
        interval: 95 %, by patients; None where there is none.
        resamples: (R,), NaN where a resample cannot tell.
    """

    metric: Metric
    interval: Interval | None
    resamples: NDArray[np.float64]

    @property
    def value(self) -> float | None:
        """The score, None where it is undefined."""
        return self.metric.value


class PatientDraws:
    """The resamples of one test set.

    Args:
        patients: (N,), the patient of each image, numbered from 0 upwards.
        num_resamples: R.
        seed: Seed of the draw.
    """

    def __init__(
        self,
        patients: NDArray[np.int64],
        *,
        num_resamples: int = NUM_RESAMPLES,
        seed: int = 0,
    ) -> None:
        self._patients = patients
        num_patients = int(patients.max(initial=-1)) + 1
        self._drawn = np.concatenate(list(draw_patients(num_patients, num_resamples, seed)))

    def auroc(
        self, labels: NDArray[np.uint8], scores: NDArray[np.float64], members: Rows
    ) -> Estimate:
        """Score how well some images are told apart.

        Args:
            labels: (N,), 0 or 1.
            scores: (N,).
            members: (N,), which images to judge by.
        """
        own, patients = labels[members], self._patients[members]
        ranking = Ranking.of(own, scores[members])
        parts = [
            ranking.scores(self._drawn[start : start + BLOCK][:, patients])[0]
            for start in range(0, len(self._drawn), BLOCK)
        ]
        return self._estimate(auroc(own, scores[members]), np.concatenate(parts), patients)

    def mean(self, values: NDArray[np.float64], members: Rows, reason: str) -> Estimate:
        """Average (N,) values over some images; undefined where there are none."""
        return self.ratio(values, np.ones(len(values)), members, reason)

    def ratio(
        self,
        part: NDArray[np.float64],
        whole: NDArray[np.float64],
        members: Rows,
        reason: str,
    ) -> Estimate:
        """Divide the sums of two (N,) values over some images."""
        patients, num_patients = self._patients[members], self._drawn.shape[1]
        tops = np.bincount(patients, part[members], minlength=num_patients)
        bottoms = np.bincount(patients, whole[members], minlength=num_patients)
        total = float(bottoms.sum())
        metric = Metric(float(tops.sum()) / total) if total > 0 else mean(np.zeros(0), reason)
        return self._estimate(metric, ratio(self._drawn @ tops, self._drawn @ bottoms), patients)

    def combine(self, metric: Metric, resamples: NDArray[np.float64]) -> Estimate:
        """Return a score computed from others of the same draws."""
        return self._estimate(metric, resamples, self._patients)

    def _estimate(
        self, metric: Metric, resamples: NDArray[np.float64], patients: NDArray[np.int64]
    ) -> Estimate:
        enough = metric.value is not None and len(np.unique(patients)) >= MIN_PATIENTS
        return Estimate(metric, percentile_interval(resamples) if enough else None, resamples)
