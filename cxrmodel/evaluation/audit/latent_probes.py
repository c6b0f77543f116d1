"""What a straight line through the latents tells of the patient and the view, beside disease.

Source: G. Alain, Y. Bengio, Understanding intermediate layers using linear classifier probes,
ICLR 2017 workshop.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrmodel.evaluation.audit.estimates import Estimate, PatientDraws
from cxrmodel.evaluation.metrics import Metric

MAX_ITERATIONS = 1_000
RIDGE_WEIGHTS = tuple(10.0**power for power in range(-2, 5))
MIN_TRAIN = 20
PROBED = {"view": "AP", "sex": "F"}

Latents = NDArray[np.float64]


def probe_latents(
    mu: Latents, images: pd.DataFrame, test_draws: PatientDraws
) -> dict[str, Estimate]:
    """Fit linear probes on train and judge them on test.

    Args:
        mu: (N, Z).
        images: N rows with `split`, `age`, `sex` and `view`.
        test_draws: Resamples of the test rows among them.

    Returns:
        AUROC of `view` (AP) and `sex` (F), and the R squared of `age`.
    """
    split = images["split"].to_numpy()
    found = {
        name: _probe_class(mu, images[name].to_numpy(dtype=object), level, split, test_draws)
        for name, level in PROBED.items()
    }
    ages = pd.to_numeric(images["age"]).to_numpy(dtype=np.float64, na_value=np.nan)
    return found | {"age": _probe_age(mu, ages, split, test_draws)}


def _probe_class(
    mu: Latents, values: NDArray[np.object_], level: str, split: NDArray[np.object_],
    draws: PatientDraws,
) -> Estimate:  # fmt: skip
    known = np.asarray(pd.notna(values))
    labels = (values == level).astype(np.uint8)
    train, test = known & (split == "train"), split == "test"
    if train.sum() < MIN_TRAIN or len(np.unique(labels[train])) == 1:
        return draws.combine(Metric.undefined("train has one kind only"), np.zeros(0))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS))
    model.fit(mu[train], labels[train])
    scores = model.decision_function(mu[test]) if test.any() else np.zeros(0)
    return draws.auroc(labels[test], scores, known[test])


def _probe_age(
    mu: Latents, ages: NDArray[np.float64], split: NDArray[np.object_], draws: PatientDraws
) -> Estimate:
    known = ~np.isnan(ages)
    train, test = known & (split == "train"), split == "test"
    if train.sum() < MIN_TRAIN or not test.any():
        return draws.combine(Metric.undefined("too few ages are known"), np.zeros(0))
    model = make_pipeline(StandardScaler(), RidgeCV(RIDGE_WEIGHTS)).fit(mu[train], ages[train])
    errors = np.nan_to_num(model.predict(mu[test]) - ages[test]) ** 2
    spread = np.nan_to_num(ages[test] - ages[train].mean()) ** 2
    unexplained = draws.ratio(errors, spread, known[test], "no age is known in test")
    if unexplained.value is None:
        return unexplained
    return draws.combine(Metric(1 - unexplained.value), 1 - unexplained.resamples)


def distance_from_normal(mu: Latents, normal: NDArray[np.bool_]) -> Latents | None:
    """Return the Mahalanobis distance of each latent from the train films with no listed finding.

    Source: O. Ledoit, M. Wolf, A well-conditioned estimator for large-dimensional covariance
    matrices, J. Multivar. Anal. 88 (2004), for a covariance of few films.

    Args:
        mu: (N, Z).
        normal: (N,), which to fit on.

    Returns:
        (N,); None where there are fewer than two.
    """
    if normal.sum() < 2:  # noqa: PLR2004
        return None
    squared = LedoitWolf().fit(mu[normal]).mahalanobis(mu)
    return np.asarray(np.sqrt(squared))
