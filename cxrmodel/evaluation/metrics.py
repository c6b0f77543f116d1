"""The scores of one class, each defined once for the images as they are and for resamples.

To add a score that is a ratio of two sums over images, add it to `RATIOS`: it then has an interval,
a mean over classes, and its place in metrics.json and on the page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrmodel.evaluation.patient_bootstrap import (
    Counts,
    Estimate,
    Floats,
    PatientBootstrap,
    Rows,
    divide,
    mean,
)
from cxrmodel.evaluation.predictions import Predictions

DEFAULT_THRESHOLD = 0.5

NO_IMAGE = "no image to judge by"
NO_POSITIVE = "no positive image in test"
NO_NEGATIVE = "no negative image in test"

Labels = NDArray[np.uint8]
Terms = tuple[Floats, Floats]


def auroc(labels: Labels, probabilities: Floats) -> Estimate:
    """Area under the ROC curve of one class; undefined without both classes.

    Args:
        labels: (N,), 0 or 1.
        probabilities: (N,), any increasing function of the probability.
    """
    if not labels.any():
        return Estimate.undefined(NO_POSITIVE)
    if labels.all():
        return Estimate.undefined(NO_NEGATIVE)
    return Estimate(float(roc_auc_score(labels, probabilities)))


def average_precision(labels: Labels, probabilities: Floats) -> Estimate:
    """Mean precision over recall steps, without interpolation; undefined without a positive.

    Its chance level is the prevalence, so the two are read together.
    """
    if not labels.any():
        return Estimate.undefined(NO_POSITIVE)
    return Estimate(float(average_precision_score(labels, probabilities)))


def prevalence(labels: Labels) -> Estimate:
    """Share of positive images."""
    return mean(labels.astype(np.float64), NO_IMAGE)


@dataclass(frozen=True)
class Ratio:
    """A score that divides one sum over images by another.

    Attributes:
        title: What a table calls it.
        terms: From labels and probabilities, both (N,) or (N, C), and the threshold of each class,
            to each image's share of the numerator and of the denominator, (N,) or (N, C). What it
            makes of an unknown label does not count.
        needs: The kind of image without which the score is undefined.
        uses_threshold: Whether it is undefined without a threshold from validation.
    """

    title: str
    terms: Callable[[Labels | Floats, Floats, Floats | float], Terms]
    needs: Literal["image", "positive", "negative"]
    uses_threshold: bool = True

    def score(self, labels: Labels, probabilities: Floats, threshold: Estimate) -> Estimate:
        """Score one class.

        Args:
            labels: (N,), 0 or 1.
            probabilities: (N,), in [0, 1].
            threshold: An image is called positive from there upwards.
        """
        if not self._needed(labels).any():
            no_negative = NO_NEGATIVE if labels.size else NO_IMAGE
            return Estimate.undefined(NO_POSITIVE if self.needs == "positive" else no_negative)
        if self.uses_threshold and threshold.value is None:
            return Estimate.undefined(f"no threshold: {threshold.reason}")
        part, whole = self.terms(labels, probabilities, limit_of(threshold))
        if not whole.any():
            return Estimate.undefined(NO_IMAGE)
        return Estimate(float(np.sum(part) / np.sum(whole)))

    def resample(self, test: Predictions, limits: Floats, bootstrap: PatientBootstrap) -> Floats:
        """Return the (R, C) scores of the resamples; NaN where one cannot tell.

        Args:
            test: N images of C classes.
            limits: (C,), thresholds, NaN where undefined.
            bootstrap: Of the same images.
        """
        arrays = (*self.terms(test.labels, test.probabilities, limits), self._needed(test.labels))
        part, whole, needed = (  # (P, C)
            bootstrap.sum_by_patient(np.where(test.known, array, 0)) for array in arrays
        )

        def score(drawn: Floats) -> Floats:  # (r, P) -> (r, C)
            return np.where(drawn @ needed > 0, divide(drawn @ part, drawn @ whole), np.nan)

        scores = bootstrap.resample(score)
        if self.uses_threshold:
            scores[:, np.isnan(limits)] = np.nan
        return scores

    def estimate(
        self, test: Predictions, limits: Floats, bootstrap: PatientBootstrap
    ) -> list[Estimate]:
        """Score each class of C, with its interval; arguments as of `resample`."""
        resamples = self.resample(test, limits, bootstrap)
        found = []
        for column, limit in enumerate(limits):
            labels, probabilities, known = test.of_class(column)
            point = self.score(labels, probabilities, threshold_of(limit))
            found.append(bootstrap.estimate(point, resamples[:, column], known))
        return found

    def _needed(self, labels: Labels | Floats) -> NDArray[np.bool_]:
        if self.needs == "image":
            return np.ones(labels.shape, dtype=bool)
        return np.asarray(labels == (1 if self.needs == "positive" else 0))


def limit_of(threshold: Estimate) -> float:
    """Return a threshold as a number, NaN where it is undefined."""
    return np.nan if threshold.value is None else threshold.value


def threshold_of(limit: float) -> Estimate:
    """Return a number as a threshold, undefined where it is NaN."""
    return Estimate.undefined("none is given") if np.isnan(limit) else Estimate(float(limit))


def _f1(labels: Labels | Floats, probabilities: Floats, limits: Floats | float) -> Terms:
    called, positive = probabilities >= limits, labels == 1
    return 2.0 * (called & positive), 1.0 * called + positive


def _f1_at_0_5(labels: Labels | Floats, probabilities: Floats, _: Floats | float) -> Terms:
    return _f1(labels, probabilities, DEFAULT_THRESHOLD)


def _sensitivity(labels: Labels | Floats, probabilities: Floats, limits: Floats | float) -> Terms:
    positive = labels == 1
    return 1.0 * ((probabilities >= limits) & positive), 1.0 * positive


def _specificity(labels: Labels | Floats, probabilities: Floats, limits: Floats | float) -> Terms:
    negative = labels == 0
    return 1.0 * ((probabilities < limits) & negative), 1.0 * negative


def squared_errors(
    labels: Labels | Floats, probabilities: Floats, _: Floats | float = np.nan
) -> Terms:
    """Terms of the Brier score, the mean squared error of the probabilities.

    Source: G. W. Brier, Verification of forecasts expressed in terms of probability, Monthly
    Weather Review 78 (1950).
    """
    errors = (probabilities - labels) ** 2
    return errors, np.ones_like(errors)


RANKED = {"auroc": auroc, "average_precision": average_precision}
RATIOS = {
    "f1": Ratio("F1", _f1, "positive"),
    "f1_at_0_5": Ratio("F1 at 0.5", _f1_at_0_5, "positive", uses_threshold=False),
    "sensitivity": Ratio("Sensitivity", _sensitivity, "positive"),
    "specificity": Ratio("Specificity", _specificity, "negative"),
    "brier": Ratio("Brier", squared_errors, "image", uses_threshold=False),
}
METRICS = {  # what a table calls each score
    "auroc": "AUROC",
    "average_precision": "Average precision",
    **{name: ratio.title for name, ratio in RATIOS.items()},
}
HEADLINE_METRICS = ("auroc", "average_precision", "f1", "f1_at_0_5")


def score_class(labels: Labels, probabilities: Floats, threshold: Estimate) -> dict[str, Estimate]:
    """Return every score of `METRICS` of one class, without intervals.

    Args:
        labels: (N,), 0 or 1.
        probabilities: (N,), in [0, 1].
        threshold: An image is called positive from there upwards.
    """
    ranked = {name: score(labels, probabilities) for name, score in RANKED.items()}
    return ranked | {
        name: ratio.score(labels, probabilities, threshold) for name, ratio in RATIOS.items()
    }


def resample_metrics(
    test: Predictions, limits: Floats, bootstrap: PatientBootstrap
) -> dict[str, Floats]:
    """Compute every score of `METRICS` of each resample.

    Args:
        test: N images of C classes.
        limits: (C,), thresholds, NaN where undefined.
        bootstrap: Of the same images.

    Returns:
        (R, C) each; NaN where a resample cannot tell.
    """
    rankings = [
        Ranking.of(test.labels[:, column], test.probabilities[:, column], bootstrap)
        for column in range(len(test.pathologies))
    ]

    def rank(weights: Counts) -> Floats:
        scores = np.zeros((weights.shape[1], len(RANKED), len(rankings)))
        for column, ranking in enumerate(rankings):
            scores[:, :, column] = np.stack(ranking.scores(weights), axis=-1)
        return scores

    ranked = bootstrap.resample_columns(rank)  # (R, scores, C)
    return dict(zip(RANKED, ranked.swapaxes(0, 1), strict=True)) | {
        name: ratio.resample(test, limits, bootstrap) for name, ratio in RATIOS.items()
    }


def estimate_auroc(
    bootstrap: PatientBootstrap, labels: Labels | Floats, scores: Floats, members: Rows
) -> Estimate:
    """Estimate how well some images are told apart.

    Args:
        bootstrap: Of N images.
        labels: (N,), 0 or 1, or NaN where unknown.
        scores: (N,).
        members: (N,), which images to judge by, where their label is known.
    """
    members = members & ~np.isnan(labels)
    own, known = labels[members].astype(np.uint8), scores[members]
    ranking = Ranking.of(np.where(members, labels, np.nan), scores, bootstrap)
    resamples = bootstrap.resample_columns(ranking.aurocs)
    return bootstrap.estimate(auroc(own, known), resamples, members)


@dataclass(frozen=True)
class Ranking:
    """The order of one class's scores, found once for all resamples.

    A resample holds all images of a patient equally often, so its sums are products of how many
    images each patient has in a stretch of the order and how often the patient was drawn.

    Attributes:
        positives: The patient of each positive image, by increasing score.
        negatives: (stretches, P), how many negative images of each patient have a score between
            two positives.
        below, up_to: For each positive, how many stretches hold the negatives with a lower score,
            and how many those with a lower or equal one.
        positives_below: For each positive, how many positives have a lower score.
    """

    positives: NDArray[np.int64]
    negatives: sparse.csr_array
    below: NDArray[np.int64]
    up_to: NDArray[np.int64]
    positives_below: NDArray[np.int64]

    @classmethod
    def of(cls, labels: Labels | Floats, scores: Floats, bootstrap: PatientBootstrap) -> Ranking:
        """Rank (N,) scores against (N,) labels; unknown ones, NaN, are left out."""
        order = np.argsort(scores, kind="stable")
        positives, negatives = order[labels[order] == 1], order[labels[order] == 0]
        own, other = scores[positives], scores[negatives]
        below, up_to = (np.searchsorted(other, own, side=side) for side in ("left", "right"))
        cuts = np.unique(np.concatenate([[0], below, up_to, [len(negatives)]]))
        counts = (np.ones(len(negatives), np.float32), bootstrap.patients[negatives], cuts)
        return cls(
            bootstrap.patients[positives],
            sparse.csr_array(counts, shape=(len(cuts) - 1, bootstrap.num_patients)),
            np.searchsorted(cuts, below),
            np.searchsorted(cuts, up_to),
            np.searchsorted(own, own, side="left"),
        )

    def aurocs(self, weights: Counts) -> Floats:
        """Return the weighted AUROC of each resample.

        Args:
            weights: (P, R), how often a resample holds each patient.

        Returns:
            (R,); NaN where a resample lacks a class.
        """
        own = weights.take(self.positives, axis=0)  # (positives, R)
        return self._aurocs(own, _running_sums(self.negatives @ weights))

    def scores(self, weights: Counts) -> tuple[Floats, Floats]:
        """Return the weighted AUROC and average precision of each resample, as `aurocs` does."""
        own = weights.take(self.positives, axis=0)  # (positives, R)
        negatives = _running_sums(self.negatives @ weights)
        positives = _running_sums(own)
        true = positives[-1] - positives.take(self.positives_below, axis=0)
        called = true + (negatives[-1] - negatives.take(self.below, axis=0))
        # Where nothing is called the positive was not drawn either, and does not count.
        precision = np.zeros(true.shape)
        np.divide(true, called, out=precision, where=called > 0, dtype=np.float64)
        weighted = np.einsum("nr,nr->r", own, precision, dtype=np.float64)
        return self._aurocs(own, negatives), divide(weighted, positives[-1])

    def _aurocs(self, own: Counts, negatives: Counts) -> Floats:
        below, up_to = (negatives.take(rows, axis=0) for rows in (self.below, self.up_to))
        # The number of pairs is more than float32 holds.
        pairs = np.einsum("nr,nr->r", own, below + up_to, dtype=np.float64) / 2  # a tie: half
        return divide(pairs, own.sum(axis=0, dtype=np.float64) * negatives[-1])


def _running_sums(values: Counts) -> Counts:
    """Return the sums of the first 0 to N rows of (N, R) values, (N + 1, R)."""
    sums = np.zeros((len(values) + 1, values.shape[1]), dtype=values.dtype)
    np.cumsum(values, axis=0, out=sums[1:])
    return sums
