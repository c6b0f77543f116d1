"""Do two sets of images differ? Permutations of patients, and one family-wise level for all tests.

A patient has one vote, however many images of theirs there are: images are weighted by one over
their number, averaged by patient, and whole patients change sides. The largest of all statistics in
each permutation is what an observed one has to exceed (max-T: P. H. Westfall and S. S. Young,
Resampling-Based Multiple Testing, 1993), so that any number of tests together is wrong at most as
often as the level says, however strongly they depend on each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_PERMUTATIONS = 999
SEED = 0
BATCH = 50  # permutations that are computed together: bounds the memory
ROUNDING = 1e-9  # statistics that differ by less are equal
MIN_EIGENVALUE = 1e-3  # of the mean one: directions in which the latents hardly vary
CUBE_ROOT = 1 / 3  # of a sum of squares is nearly normal (Wilson and Hilferty, 1931)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Differences:
    """What each of F quantities says; the last one may be several quantities together.

    Attributes:
        effect: (F,). Of a number: the probability that an image of the window has a larger value
            than one of the reference, less 0.5. Of a share: the window's less the reference's. Of
            several together: the distance of the two means in standard deviations, less what
            chance alone gives.
        z: (F,), the effect in standard errors.
        p: (F,), of each test by itself.
        p_adjusted: (F,), of all tests together.
    """

    effect: Floats
    z: Floats
    p: Floats
    p_adjusted: Floats


def compare_patients(
    values: Floats,
    is_share: NDArray[np.bool_],
    joint: NDArray[np.bool_],
    patients: NDArray[np.int64],
    in_window: NDArray[np.bool_],
    *,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = SEED,
) -> Differences:
    """Test whether a window of images differs from a reference.

    N images, F quantities, P patients.

    Args:
        values: (N, F), NaN where unknown.
        is_share: (F,), which are 1 or 0; the others are numbers, of which the ranks count.
        joint: (F,), which are tested together as well, as one more quantity at the end.
        patients: (N,), whose image it is, from 0 on; nobody is on both sides.
        in_window: (N,), which images are the window.
        num_permutations: How often patients change sides.
        seed: Of the permutations.
    """
    votes, known = _votes(values, is_share, patients)
    directions, is_in_all = _directions(votes[:, joint], known[:, joint])
    statistics = _Statistics(
        np.column_stack([votes, directions]),
        np.column_stack([known, is_in_all]),
        np.append(is_share, np.zeros(directions.shape[1], bool)),
    )
    side = np.zeros(len(votes), bool)
    side[patients] = in_window
    difference, z = statistics.of(side[None])
    rng = np.random.default_rng(seed)
    moved, permuted = [difference], [z]
    for begin in range(0, num_permutations, BATCH):
        sides = np.zeros((min(BATCH, num_permutations - begin), len(side)), bool)
        for row in sides:
            row[rng.permutation(len(side))[: side.sum()]] = True
        difference, z = statistics.of(sides)
        moved.append(difference)
        permuted.append(z)
    return _judge(np.concatenate(moved), np.concatenate(permuted), len(is_share))


def _judge(moved: Floats, permuted: Floats, num: int) -> Differences:
    """Compare the first row of statistics, the observed one, with all.

    Args:
        moved: (1 + B, F + J), differences of F quantities and J directions.
        permuted: Likewise, in standard errors.
        num: F.
    """
    effect, z, every = moved[0, :num], permuted[0, :num], np.abs(permuted[:, :num])
    if permuted.shape[1] > num:
        score = _standardized((permuted[:, num:] ** 2).sum(axis=1))
        distance = (moved[:, num:] ** 2).sum(axis=1)
        effect = np.append(effect, np.sqrt(max(0.0, distance[0] - distance[1:].mean())))
        z, every = np.append(z, score[0]), np.column_stack([every, score])
    reached = every >= every[0] - ROUNDING
    largest = every.max(axis=1, keepdims=True) >= every[0] - ROUNDING
    return Differences(effect, z, reached.mean(axis=0), largest.mean(axis=0))


def weighted_ranks(values: Floats, weights: Floats) -> Floats:
    """Return each value's place among all: the weight below it and half of what equals it.

    Args:
        values: (N,).
        weights: (N,), positive.

    Returns:
        (N,), in (0, 1).
    """
    _, place = np.unique(values, return_inverse=True)
    weight = np.bincount(place, weights)
    below = np.cumsum(weight) - weight / 2
    return np.asarray((below / weight.sum())[place])


def _votes(
    values: Floats, is_share: NDArray[np.bool_], patients: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Return the (P, F) means of each patient, 0 where unknown, and 1 where known."""
    num_patients = int(patients.max()) + 1
    votes = np.zeros((num_patients, values.shape[1]))
    known = np.zeros_like(votes)
    for column, own in enumerate(values.T):
        has = ~np.isnan(own)
        if not has.any():
            continue
        number = np.bincount(patients[has], minlength=num_patients)
        weights = 1 / number[patients[has]]
        scores = own[has] if is_share[column] else weighted_ranks(own[has], weights)
        votes[:, column] = np.bincount(patients[has], scores * weights, num_patients)
        known[:, column] = number > 0
    return votes, known


class _Statistics:
    """The statistics of ways to divide patients into a window and a reference.

    The error of a number is that of Welch, each side's own: patients with many images vary less
    than those with one. The error of a share is that of both sides together, as a rare event that
    one side never had tells nothing of its own.
    """

    def __init__(self, votes: Floats, known: Floats, is_share: NDArray[np.bool_]) -> None:
        self._votes, self._squares, self._is_share = votes, votes**2, is_share
        self._known, which = np.unique(known, axis=1, return_inverse=True)
        self._which = which.reshape(-1)
        self._sums = [x.sum(axis=0) for x in (known, votes, self._squares)]
        self._pooled = _variance(*self._sums)

    def of(self, sides: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Return the (B, F) differences of the means and the same in standard errors.

        Args:
            sides: (B, P), which patients are the window.
        """
        drawn = sides.astype(np.float64)
        inside = [
            (drawn @ self._known)[:, self._which],
            drawn @ self._votes,
            drawn @ self._squares,
        ]
        outside = [whole - part for whole, part in zip(self._sums, inside, strict=True)]
        means, errors = [], []
        for number, total, squares in (inside, outside):
            enough = np.maximum(number, 1)
            means.append(total / enough)
            own = _variance(number, total, squares)
            errors.append(np.where(self._is_share, self._pooled, own) / enough)
        difference = means[0] - means[1]
        error = np.sqrt(errors[0] + errors[1])
        z = np.divide(difference, error, out=np.zeros_like(error), where=error > ROUNDING)
        return difference, z


def _variance(number: Floats, total: Floats, squares: Floats) -> Floats:
    mean = total / np.maximum(number, 1)
    return np.maximum(squares - number * mean**2, 0) / np.maximum(number - 1, 1)


def _directions(votes: Floats, known: Floats) -> tuple[Floats, Floats]:
    """Return (P, J) votes in directions without correlation, of unit variance, and who has them."""
    has: NDArray[np.bool_] = np.asarray(known.all(axis=1), dtype=bool)
    if not votes.shape[1] or has.sum() <= 1:
        return np.zeros((len(votes), 0)), np.zeros((len(votes), 0))
    own = votes[has]
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(own, rowvar=False)))
    least = max(MIN_EIGENVALUE * float(values.mean()), ROUNDING)
    scaled = (votes - own.mean(axis=0)) @ (vectors / np.sqrt(np.maximum(values, least)))
    knows = np.repeat(has[:, None], votes.shape[1], axis=1).astype(np.float64)
    return np.asarray(scaled * knows, dtype=np.float64), knows


def _standardized(squares: Floats) -> Floats:
    """Return (1 + B,) sums of squares as nearly normal numbers, for a fair place among others."""
    roots = squares**CUBE_ROOT
    return np.asarray((roots - roots.mean()) / max(float(roots.std()), ROUNDING))
