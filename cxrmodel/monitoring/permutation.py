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

NUM_PERMUTATIONS = 1999
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
    side = np.zeros(len(votes), bool)
    side[patients] = in_window
    statistics = _Statistics(votes, known, is_share, joint)
    differences, z = statistics.of(side[None])
    rng = np.random.default_rng(seed)
    permuted = [z]
    squares = [statistics.joint_squares(differences)]
    for begin in range(0, num_permutations, BATCH):
        sides = np.zeros((min(BATCH, num_permutations - begin), len(side)), bool)
        for row in sides:
            row[rng.permutation(len(side))[: side.sum()]] = True
        moved, moved_z = statistics.of(sides)
        permuted.append(moved_z)
        squares.append(statistics.joint_squares(moved))
    effect, every = differences[0], np.abs(np.concatenate(permuted))  # (1 + B, F)
    signed = z[0]
    if joint.any():
        together = np.concatenate(squares)
        score = _standardized(together)
        every = np.column_stack([every, score])
        signed = np.append(signed, score[0])
        effect = np.append(effect, np.sqrt(max(0.0, together[0] - together[1:].mean())))
    reached = every >= every[0] - ROUNDING
    largest = every.max(axis=1, keepdims=True) >= every[0] - ROUNDING
    return Differences(effect, signed, reached.mean(axis=0), largest.mean(axis=0))


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

    def __init__(
        self,
        votes: Floats,
        known: Floats,
        is_share: NDArray[np.bool_],
        joint: NDArray[np.bool_],
    ) -> None:
        self._votes, self._squares, self._is_share, self._joint = votes, votes**2, is_share, joint
        self._known, self._which = np.unique(known, axis=1, return_inverse=True)
        self._sums = [x.sum(axis=0) for x in (known, votes, self._squares)]
        self._pooled = _variance(*self._sums)
        self._whitening = _whitening(votes[known[:, joint].all(axis=1)][:, joint])

    def of(self, sides: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Return the (B, F) differences of the means and the same in standard errors.

        Args:
            sides: (B, P), which patients are the window.
        """
        drawn = sides.astype(np.float64)
        inside = [
            (drawn @ self._known)[:, self._which.reshape(-1)],
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

    def joint_squares(self, differences: Floats) -> Floats:
        """Return the (B,) squared distances of the means in standard deviations."""
        return np.asarray(((differences[:, self._joint] @ self._whitening) ** 2).sum(axis=1))


def _variance(number: Floats, total: Floats, squares: Floats) -> Floats:
    mean = total / np.maximum(number, 1)
    return np.maximum(squares - number * mean**2, 0) / np.maximum(number - 1, 1)


def _whitening(votes: Floats) -> Floats:
    """Return the matrix after which (P, J) votes have unit variance and no correlation."""
    if votes.shape[0] <= 1 or votes.shape[1] == 0:
        return np.zeros((votes.shape[1], votes.shape[1]))
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(votes, rowvar=False)))
    least = max(MIN_EIGENVALUE * float(values.mean()), ROUNDING)
    return np.asarray(vectors / np.sqrt(np.maximum(values, least)))


def _standardized(squares: Floats) -> Floats:
    """Return (1 + B,) sums of squares as nearly normal numbers, for a fair place among others."""
    roots = squares**CUBE_ROOT
    return np.asarray((roots - roots.mean()) / max(float(roots.std()), ROUNDING))
