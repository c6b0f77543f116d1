"""Intervals from resampled patients: images of one patient are not independent.

Source: C. A. Field, A. H. Welsh, Bootstrapping clustered data, J. R. Stat. Soc. B 69 (2007),
366-390: whole clusters are drawn with replacement, and every image comes with its patient.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 1000
LEVEL = 0.95
MIN_PATIENTS = 2  # one patient resampled is always the same patient
FEW_PATIENTS = 10  # with fewer an interval is itself uncertain
ONE_UNDEFINED = "one of the two is undefined"
BLOCK = 32  # resamples at once: 32 x 16,818 float64 weights are 4 MiB
EXACT = 2**24  # float32 holds every whole number up to that

Interval = tuple[float, float]
Floats = NDArray[np.float64]
Counts = NDArray[np.float32] | NDArray[np.float64]
Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, or the reason why there is none.

    Attributes:
        value: The number; None where it is undefined.
        interval: 95 % interval by patients; None where there is none.
        reason: Why the number is undefined; None where it is not.
        resamples: (R,), NaN where a resample cannot tell; empty where nothing was resampled.
    """

    value: float | None
    interval: Interval | None = None
    reason: str | None = None
    resamples: Floats = field(default_factory=lambda: np.zeros(0), compare=False, repr=False)

    @classmethod
    def undefined(cls, reason: str) -> Estimate:
        """Return an estimate without a value."""
        return cls(None, reason=reason)

    @property
    def verdict(self) -> str:
        """Of a difference: `higher`, `lower`, or `unclear` where the interval cannot tell."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return "unclear"
        return "higher" if self.interval[0] > 0 else "lower"


class PatientBootstrap:
    """Draws of the patients of some images; what one bootstrap estimates is paired.

    Args:
        patients: (N,), the patient of each image, numbered from 0 upwards.
        num_resamples: R.
        seed: Seed of the draws; the same seed draws the same patients.
    """

    def __init__(
        self, patients: NDArray[np.int64], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
    ) -> None:
        self.patients = patients
        self.num_patients = int(patients.max(initial=-1)) + 1
        self._drawn = draw_patients(self.num_patients, num_resamples, seed)  # (R, P)

    def only(self, rows: Rows) -> Self:
        """Return the same draws for some of the images, paired with those for the others.

        Args:
            rows: (N,), which images.
        """
        part = copy.copy(self)
        part.patients = self.patients[rows]
        return part

    def resample(self, score: Callable[[Floats], Floats]) -> Floats:
        """Apply a score to the draws, block by block.

        Args:
            score: From how often each patient was drawn, (up to `BLOCK`, P), to as many scores.

        Returns:
            (R, ...), the scores of all draws.
        """
        starts = range(0, len(self._drawn), BLOCK)
        return np.concatenate([score(self._drawn[start : start + BLOCK]) for start in starts])

    def resample_columns(self, score: Callable[[Counts], Floats]) -> Floats:
        """Apply a score to the draws as `resample` does, from (P, up to `BLOCK`).

        These are float32 where that holds the number of images of every resample exactly.
        """
        return np.concatenate([score(columns) for columns in self._columns])

    @cached_property
    def _columns(self) -> list[Counts]:
        images = np.bincount(self.patients, minlength=self._drawn.shape[1])
        is_exact = (self._drawn @ images).max(initial=0) < EXACT
        drawn = self._drawn.T.astype(np.float32 if is_exact else np.float64)
        starts = range(0, len(self._drawn), BLOCK)
        return [np.ascontiguousarray(drawn[:, start : start + BLOCK]) for start in starts]

    def sum_by_patient(self, values: NDArray[np.generic], members: Rows | None = None) -> Floats:
        """Add up (N, ...) values over the images of each patient.

        Args:
            values: (N, ...).
            members: (N,), which images to add up; all without.

        Returns:
            (P, ...).
        """
        sums = np.zeros((self._drawn.shape[1], *values.shape[1:]))
        rows = slice(None) if members is None else members
        np.add.at(sums, self.patients[rows], values[rows])
        return sums

    def estimate(self, point: Estimate, resamples: Floats, members: Rows | None = None) -> Estimate:
        """Give a score its interval, where it rests on two patients or more.

        Args:
            point: The score on the images as they are.
            resamples: (R,), the same of each resample; NaN where it cannot tell.
            members: (N,), the images that the score rests on; all without.
        """
        patients = self.patients if members is None else self.patients[members]
        enough = point.value is not None and _are_several(patients)
        interval = percentile_interval(resamples) if enough else None
        return Estimate(point.value, interval, point.reason, resamples)

    def mean(self, values: Floats, members: Rows, reason: str) -> Estimate:
        """Estimate the mean of (N,) values over some images; undefined where there are none."""
        return self.ratio(values, np.ones(len(values)), members, reason)

    def ratio(self, part: Floats, whole: Floats, members: Rows, reason: str) -> Estimate:
        """Estimate the ratio of the sums of two (N,) values over some images.

        Args:
            part: (N,), the numerator of each image.
            whole: (N,), the denominator.
            members: (N,), which images to add up.
            reason: Why the ratio is undefined, where the denominators add up to 0.
        """
        tops, bottoms = (self.sum_by_patient(values, members) for values in (part, whole))
        total = float(bottoms.sum())
        point = Estimate(float(tops.sum()) / total) if total > 0 else Estimate.undefined(reason)
        resamples = self.resample(lambda drawn: divide(drawn @ tops, drawn @ bottoms))
        return self.estimate(point, resamples, members)

    def macro(self, classes: Sequence[Estimate], resamples: Floats) -> Estimate:
        """Average a score over the classes that define it, in the whole and in each resample.

        Args:
            classes: The score of each class.
            resamples: (R, C), NaN where a resample cannot tell.
        """
        return self.estimate(macro(classes), mean_over_classes(resamples))

    def macro_of(self, classes: Sequence[Estimate]) -> Estimate:
        """Average estimates of this bootstrap over the classes that define the score."""
        defined = [one.resamples for one in classes if one.value is not None]
        return self.macro(classes, np.stack(defined, axis=1) if defined else np.zeros((0, 0)))

    def difference(self, one: Estimate, two: Estimate, reason: str = ONE_UNDEFINED) -> Estimate:
        """Estimate how much higher one score of this bootstrap is than another, in pairs."""
        point = difference(one, two, reason)
        if point.value is None:
            return point
        return self.estimate(point, one.resamples - two.resamples)


def _are_several(patients: NDArray[np.int64]) -> bool:
    """Say whether there are `MIN_PATIENTS`, in a fraction of the time of counting them."""
    return bool((patients != patients[:1]).any())


def draw_patients(num_patients: int, num_resamples: int, seed: int) -> Floats:
    """Draw patients with replacement, as many as there are.

    Returns:
        (R, P), how often each patient was drawn.
    """
    if not num_patients:
        return np.zeros((num_resamples, 0))
    rng = np.random.default_rng(seed)
    even = np.full(num_patients, 1 / num_patients)
    return rng.multinomial(num_patients, even, size=num_resamples).astype(np.float64)


def percentile_interval(resamples: Floats) -> Interval | None:
    """Return the central 95 % of the resampled values, those that are defined.

    Args:
        resamples: (R,), NaN where a resample cannot tell.

    Returns:
        Lower and upper bound; None where no resample can tell.
    """
    defined = resamples[~np.isnan(resamples)]
    if not defined.size:
        return None
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)


def mean_over_classes(resamples: Floats) -> Floats:
    """Average (R, C) values over the classes defined in each resample; NaN where none is."""
    return divide(np.nansum(resamples, axis=1), (~np.isnan(resamples)).sum(axis=1))


def mean(values: Floats, reason: str) -> Estimate:
    """Return the mean of some numbers; undefined, for the given reason, where there are none."""
    return Estimate(float(np.mean(values))) if values.size else Estimate.undefined(reason)


def macro(classes: Sequence[Estimate]) -> Estimate:
    """Return the unweighted mean over the classes where a score is defined."""
    defined = np.array([one.value for one in classes if one.value is not None])
    return mean(defined, "undefined for every class")


def difference(one: Estimate, two: Estimate, reason: str = ONE_UNDEFINED) -> Estimate:
    """Return how much higher one number is than another; undefined where either is."""
    if one.value is None or two.value is None:
        return Estimate.undefined(reason)
    return Estimate(one.value - two.value)


def divide(part: Floats, whole: Floats | NDArray[np.int64]) -> Floats:
    """Divide element by element; NaN where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def few_patients(num_patients: int, num_positive: int | None = None) -> str | None:
    """Return a warning where an interval rests on too few patients.

    Args:
        num_patients: Patients that the interval rests on: what the bootstrap can vary.
        num_positive: Their positive images, where only those count.
    """
    if num_patients >= FEW_PATIENTS:
        return None
    what = _counted(num_patients, "patient")
    if num_positive is not None:
        what = f"{_counted(num_positive, 'positive image')} of {what} in test"
    return f"{what}: fewer than {FEW_PATIENTS}, so the interval is itself uncertain"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
