"""What was predicted beside what was so, and the mean distance of the two.

Source: K. Nguyen, B. O'Connor, Posterior calibration and exploratory analysis, EMNLP 2015: bins
that hold equally many images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrmodel.evaluation.bootstrap import draw_patients
from cxrmodel.evaluation.intervals import Interval, percentile_interval
from cxrmodel.evaluation.metrics import NO_IMAGE, Metric
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.evaluation.tallies import sum_by_patient

MAX_BINS = 10
MIN_IN_BIN = 20  # images, so that a share means something


@dataclass(frozen=True)
class Reliability:
    """What was predicted and what was so, in bins of about equally many images.

    Attributes:
        predicted: (B,), mean probability of each bin, increasing.
        observed: (B,), share of positive images of each bin.
        counts: (B,), images of each bin.
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def error(self) -> Metric:
        """Expected calibration error: mean distance of the two over the images."""
        if not len(self.counts):
            return Metric.undefined(NO_IMAGE)
        distance = np.abs(self.predicted - self.observed)
        return Metric(float(np.average(distance, weights=self.counts)))


def measure_reliability(
    labels: NDArray[np.uint8], probabilities: NDArray[np.float64]
) -> Reliability:
    """Bin images by quantiles of their probability; equal probabilities share a bin.

    Ten bins, fewer where they would hold fewer than twenty images.

    Args:
        labels: (N,), 0 or 1.
        probabilities: (N,), in [0, 1].
    """
    if not len(labels):
        return Reliability(np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
    bins = _bins_of(probabilities)
    counts = np.bincount(bins)
    used = counts > 0
    return Reliability(
        np.bincount(bins, probabilities)[used] / counts[used],
        np.bincount(bins, labels)[used] / counts[used],
        counts[used],
    )


def _bins_of(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    num_bins = int(np.clip(len(probabilities) // MIN_IN_BIN, 1, MAX_BINS))
    inner_edges = np.quantile(probabilities, np.linspace(0, 1, num_bins + 1)[1:-1])
    return np.searchsorted(np.unique(inner_edges), probabilities, side="right").astype(np.int64)


def resample_errors(test: Predictions, *, num_resamples: int, seed: int) -> NDArray[np.float64]:
    """Return (R, C) expected calibration errors of R resamples, in the bins of the test images.

    A bin's distance times its images is the absolute sum of what was predicted less what was so.

    Args:
        test: N images of C classes; at least one image.
        num_resamples: R.
        seed: Seed of the draw of patients.
    """
    num_classes = len(test.pathologies)
    surplus = test.probabilities - test.labels  # (N, C)
    by_bin = np.zeros((test.num_images, num_classes, MAX_BINS))
    for column in range(num_classes):
        bins = _bins_of(test.probabilities[:, column])
        by_bin[np.arange(test.num_images), column, bins] = surplus[:, column]
    sums = sum_by_patient(by_bin.reshape(test.num_images, -1), test.patients)  # (P, C * bins)
    counts = np.bincount(test.patients)
    errors = []
    for patients in draw_patients(len(counts), num_resamples, seed):
        distances = np.abs(patients @ sums).reshape(len(patients), num_classes, MAX_BINS)
        errors.append(distances.sum(axis=2) / (patients @ counts)[:, None])
    return np.concatenate(errors)


def centred_interval(resamples: NDArray[np.float64], value: float) -> Interval | None:
    """Return the percentile interval of resampled errors, moved so that their mean is the error.

    An error is a mean of distances: with noise it grows, and resamples have more noise than the
    test images. Unmoved, the interval can lie above the error that it belongs to.

    Args:
        resamples: (R,), NaN where a resample could not tell.
        value: The error on the test images.
    """
    interval = percentile_interval(resamples)
    if interval is None:
        return None
    surplus = float(np.nanmean(resamples)) - value
    return max(0.0, interval[0] - surplus), interval[1] - surplus
