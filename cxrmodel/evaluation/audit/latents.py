"""What the latents say about the patient and the view, and whether unusual images are abnormal.

Source of the probes: G. Alain, Y. Bengio, Understanding intermediate layers using linear classifier
probes, ICLR 2017 workshop.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrmodel.evaluation.autoencoder import kl_to_prior, latent_columns
from cxrmodel.evaluation.metrics import estimate_auroc
from cxrmodel.evaluation.patient_bootstrap import Estimate, Floats, PatientBootstrap, Rows

MAX_ITERATIONS = 1_000
RIDGE_WEIGHTS = tuple(10.0**power for power in range(-2, 5))
MIN_TRAIN = 20
MIN_NORMAL = 2
PROBED = {"view": "AP", "sex": "F"}


def probe_latents(
    mu: Floats, images: pd.DataFrame, bootstrap: PatientBootstrap
) -> dict[str, Estimate]:
    """Fit linear probes on train and judge them on test.

    Args:
        mu: (N, Z).
        images: N rows with `split`, `age`, `sex` and `view`.
        bootstrap: Of the test rows among them.

    Returns:
        AUROC of `view` (AP) and `sex` (F), and the R squared of `age`.
    """
    split = images["split"].to_numpy()
    found = {
        name: _probe_class(mu, images[name].to_numpy(dtype=object), level, split, bootstrap)
        for name, level in PROBED.items()
    }
    ages = pd.to_numeric(images["age"]).to_numpy(dtype=np.float64, na_value=np.nan)
    return found | {"age": _probe_age(mu, ages, split, bootstrap)}


def _probe_class(
    mu: Floats, values: NDArray[np.object_], level: str, split: NDArray[np.object_],
    bootstrap: PatientBootstrap,
) -> Estimate:  # fmt: skip
    known = np.asarray(pd.notna(values))
    labels = (values == level).astype(np.uint8)
    train, test = known & (split == "train"), split == "test"
    if train.sum() < MIN_TRAIN:
        return Estimate.undefined("known of too few images")
    if len(np.unique(labels[train])) == 1:
        return Estimate.undefined("train has one kind only")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS))
    model.fit(mu[train], labels[train])
    scores = model.decision_function(mu[test]) if test.any() else np.zeros(0)
    return estimate_auroc(bootstrap, labels[test], scores, known[test])


def _probe_age(
    mu: Floats, ages: Floats, split: NDArray[np.object_], bootstrap: PatientBootstrap
) -> Estimate:
    known = ~np.isnan(ages)
    train, test = known & (split == "train"), split == "test"
    if train.sum() < MIN_TRAIN or not test.any():
        return Estimate.undefined("known of too few images")
    model = make_pipeline(StandardScaler(), RidgeCV(RIDGE_WEIGHTS)).fit(mu[train], ages[train])
    errors = np.nan_to_num(model.predict(mu[test]) - ages[test]) ** 2
    spread = np.nan_to_num(ages[test] - ages[train].mean()) ** 2
    unexplained = bootstrap.ratio(errors, spread, known[test], "no age is known in test")
    if unexplained.value is None:
        return unexplained
    return bootstrap.estimate(Estimate(1 - unexplained.value), 1 - unexplained.resamples)


def score_anomaly(
    latents: pd.DataFrame, images: pd.DataFrame, abnormal: Floats, bootstrap: PatientBootstrap
) -> dict[str, Estimate]:
    """AUROC for any listed finding, on test, of three measures of how unusual an image is.

    Args:
        latents: N rows of `latents.parquet`.
        images: The same N rows, with `split`.
        abnormal: (N,), 1 where a finding is listed, 0 where none is, NaN where nobody can know.
        bootstrap: Of the test rows among them.

    Returns:
        Of `reconstruction_error` (L1), `kl` (to the prior), and `mahalanobis` (distance of mu from
        the train images with no listed finding), where those are at least two.
    """
    of_test = (images["split"] == "test").to_numpy()
    mu = latent_columns(latents, "mu")
    scores = {
        "reconstruction_error": latents["l1"].to_numpy(dtype=np.float64),
        "kl": kl_to_prior(latents).sum(axis=1),
    }
    normal = (images["split"] == "train").to_numpy() & (abnormal == 0)
    distance = distance_from_normal(mu, normal)
    if distance is not None:
        scores["mahalanobis"] = distance
    everyone = np.ones(int(of_test.sum()), dtype=bool)
    return {
        name: estimate_auroc(bootstrap, abnormal[of_test], values[of_test], everyone)
        for name, values in scores.items()
    }


def distance_from_normal(mu: Floats, normal: Rows) -> Floats | None:
    """Return the Mahalanobis distance of each latent from train images with no listed finding.

    Source: O. Ledoit, M. Wolf, A well-conditioned estimator for large-dimensional covariance
    matrices, J. Multivar. Anal. 88 (2004), for a covariance of few images.

    Args:
        mu: (N, Z).
        normal: (N,), which to fit on.

    Returns:
        (N,); None where there are fewer than two.
    """
    if normal.sum() < MIN_NORMAL:
        return None
    squared = LedoitWolf().fit(mu[normal]).mahalanobis(mu)
    return np.asarray(np.sqrt(squared))
