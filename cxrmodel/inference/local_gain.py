"""What some labelled images of a site would gain: tried on those that are there.

Again and again some images are drawn, patient by patient; thresholds and scaling are fitted on them
as `cxrmodel recalibrate` does, and judged on the images of the other patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrmodel.errors import DataError
from cxrmodel.evaluation.calibration import measure_reliability, resample_errors
from cxrmodel.evaluation.metrics import RATIOS, limit_of
from cxrmodel.evaluation.patient_bootstrap import (
    Estimate,
    Floats,
    PatientBootstrap,
    Rows,
    percentile_interval,
)
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.evaluation.sites import LocalGain
from cxrmodel.inference.calibration import MIN_OF_EACH, fit_locally, scale

NUM_DRAWS = 50
NUM_RESAMPLES = 40  # of each draw
GAINS = ("f1", "brier", "ece")


@dataclass(frozen=True)
class _Draw:
    """One draw: the macro gains on the patients left out, and how many labels were fitted."""

    gains: dict[str, Estimate]
    fitted: set[str]


def gain_of_labels(
    site: Predictions, thresholds: dict[str, Estimate], num_images: int, *, seed: int = 0
) -> LocalGain:
    """Say what so many labelled images would gain over what the model brings from home.

    Args:
        site: N images; probabilities as the model gives them.
        thresholds: Of the model, by label.
        num_images: How many images to fit on; the last patient drawn may add a few.
        seed: Seed of the draws.

    Raises:
        DataError: There are too few other images to judge by, or no label can be fitted.
    """
    if 2 * num_images > site.num_images:
        raise DataError(
            f"recalibrate is {num_images:,}, and the site has {site.num_images:,} images to judge "
            f"by. Give at most half of them, {site.num_images // 2:,}, as the others judge."
        )
    rng = np.random.default_rng(seed)
    draws = []
    for number in range(NUM_DRAWS):
        drawn = draw_images(site.patients, num_images, rng)
        draws.append(_try(site, drawn, thresholds, seed=seed + number))
    fitted = {
        label: sum(label in draw.fitted for draw in draws) / NUM_DRAWS for label in site.pathologies
    }
    if not any(fitted.values()):
        raise DataError(
            f"With {num_images:,} images no label has {MIN_OF_EACH} patients with a positive "
            "image and as many with a negative one, so nothing could be fitted. Give a higher "
            "recalibrate, or leave it out."
        )
    gains = {name: _together([draw.gains[name] for draw in draws]) for name in GAINS}
    return LocalGain(num_images, NUM_DRAWS, gains, fitted)


def draw_images(patients: NDArray[np.int64], num_images: int, rng: np.random.Generator) -> Rows:
    """Draw patients without replacement until they have so many images; (N,), which these are."""
    numbers, counts = np.unique(patients, return_counts=True)
    order = rng.permutation(len(numbers))
    needed = int(np.searchsorted(np.cumsum(counts[order]), num_images)) + 1
    return np.isin(patients, numbers[order[:needed]])


def _try(site: Predictions, drawn: Rows, thresholds: dict[str, Estimate], *, seed: int) -> _Draw:
    """Fit on the images drawn, and judge on the others."""
    rest = Predictions(
        site.pathologies,
        site.labels[~drawn],
        site.probabilities[~drawn],
        np.unique(site.patients[~drawn], return_inverse=True)[1].astype(np.int64),
    )
    limits = np.array([limit_of(thresholds[label]) for label in site.pathologies])
    probabilities, new_limits, fitted = rest.probabilities.copy(), limits.copy(), set()
    for column, label in enumerate(site.pathologies):
        known = drawn & site.known[:, column]
        fit = fit_locally(
            site.labels[known, column].astype(np.uint8),
            site.probabilities[known, column],
            site.patients[known],
        )
        if fit is not None:
            slope, intercept, threshold = fit
            probabilities[:, column] = scale(probabilities[:, column], slope, intercept)
            new_limits[column] = np.nan if threshold is None else threshold
            fitted.add(label)
    bootstrap = PatientBootstrap(rest.patients, num_resamples=NUM_RESAMPLES, seed=seed)
    before = _scores(rest, limits, bootstrap)
    after = _scores(rest.with_probabilities(probabilities), new_limits, bootstrap)
    return _Draw({name: _gain(before[name], after[name], bootstrap) for name in GAINS}, fitted)


def _gain(before: list[Estimate], after: list[Estimate], bootstrap: PatientBootstrap) -> Estimate:
    """Return the mean gain of the labels whose score is defined before and after."""
    changes = [bootstrap.difference(new, old) for new, old in zip(after, before, strict=True)]
    return bootstrap.macro_of(changes)


def _scores(
    rest: Predictions, limits: Floats, bootstrap: PatientBootstrap
) -> dict[str, list[Estimate]]:
    """Return F1, Brier score and calibration error of each label."""
    errors = resample_errors(rest, bootstrap)
    curves = [measure_reliability(*rest.of_class(column)[:2]) for column in range(len(limits))]
    return {
        "ece": [
            bootstrap.estimate(curve.error, errors[:, column])
            for column, curve in enumerate(curves)
        ],
        **{name: RATIOS[name].estimate(rest, limits, bootstrap) for name in ("f1", "brier")},
    }


def _together(gains: list[Estimate]) -> Estimate:
    """Return the mean gain over draws, with an interval over draws and resamples of the others."""
    values = np.array([gain.value for gain in gains if gain.value is not None])
    if not len(values):
        return Estimate.undefined("undefined in every draw")
    resamples = [gain.resamples for gain in gains if gain.resamples.size]
    spread = np.concatenate(resamples) if resamples else values
    return Estimate(float(values.mean()), percentile_interval(spread), resamples=spread)
