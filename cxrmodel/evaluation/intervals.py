"""95 % percentile intervals of resampled metrics, and when not to trust them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 1000
LEVEL = 0.95
MIN_POSITIVES = 10
MIN_PATIENTS = 2

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """How much higher one score is than another on the same test patients.

    Attributes:
        value: The difference; None where either score is undefined.
        interval: 95 % interval of the paired difference, if there is one.
    """

    value: float | None
    interval: Interval | None

    @property
    def verdict(self) -> str:
        """`higher`, `lower`, or `unclear` where the interval holds 0 or does not exist."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return "unclear"
        return "higher" if self.interval[0] > 0 else "lower"


def percentile_interval(resamples: NDArray[np.float64]) -> Interval | None:
    """Return the central 95 % of the resampled values, those that are defined.

    Args:
        resamples: (R,), NaN where a resample could not tell.

    Returns:
        Lower and upper bound; None where no resample could tell.
    """
    defined = resamples[~np.isnan(resamples)]
    if not defined.size:
        return None
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)


def mean_over_classes(resamples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average (R, C) values over the classes defined in each resample; NaN where none is."""
    defined = ~np.isnan(resamples)
    total, count = np.nansum(resamples, axis=1), defined.sum(axis=1)
    means = np.full(len(total), np.nan)
    np.divide(total, count, out=means, where=count > 0)
    return means


def few_positives(num_positive: int, num_patients: int) -> str | None:
    """Return a warning where an interval rests on too few positive images or patients.

    Args:
        num_positive: Positive images in test.
        num_patients: Patients that have them: what the bootstrap can vary.
    """
    if num_patients >= MIN_POSITIVES:
        return None
    return (
        f"{num_positive} positive image{_plural(num_positive)} of {num_patients} "
        f"patient{_plural(num_patients)} in test: fewer than {MIN_POSITIVES}, "
        "so the interval is itself uncertain"
    )


def few_patients(num_patients: int) -> str | None:
    """Return a warning where an interval rests on too few patients."""
    if num_patients >= MIN_POSITIVES:
        return None
    return (
        f"{num_patients} patient{_plural(num_patients)}: fewer than {MIN_POSITIVES}, so the "
        "interval is itself uncertain"
    )


def _plural(count: int) -> str:
    return "" if count == 1 else "s"
