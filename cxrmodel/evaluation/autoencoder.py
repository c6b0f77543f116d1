"""How well the autoencoder compresses, from its latents alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from cxrmodel.evaluation.patient_bootstrap import (
    Estimate,
    Floats,
    PatientBootstrap,
    Rows,
    mean,
)
from cxrmodel.models.posterior import AggregatePosterior, kl_by_dimension, num_active_units
from cxrmodel.models.similarity import MS_SSIM_MIN_PX

MIN_IMAGES = 2
QUALITY = ("l1", "psnr", "ssim", "ms_ssim")
TOO_SMALL = f"images of less than {MS_SSIM_MIN_PX} px a side are too small for five scales"
NO_LISTED_FINDING = "no listed finding"


@dataclass(frozen=True)
class AutoencoderEvaluation:
    """Scores of the autoencoder; those of the latents are of the test images.

    Attributes:
        metrics: With intervals `test_l1` (on [0, 1]), `test_psnr` (dB), `test_ssim` and
            `test_ms_ssim`; without `val_l1`, `kl_nats` (summed over the dimensions),
            `active_units`, and `aggregate_kl_nats`, the KL of the aggregate posterior of train
            from the prior.
        kl_per_dim: (Z,), nats, mean over test images; empty without a test image.
        aggregate: The aggregate posterior of the train images, None without one.
    """

    metrics: dict[str, Estimate]
    kl_per_dim: Floats
    aggregate: AggregatePosterior | None


def latent_columns(latents: pd.DataFrame, moment: str) -> Floats:
    """Return (N, Z) of `mu` or `logvar`."""
    return latents.filter(regex=rf"^{moment}_\d+$").to_numpy(dtype=np.float64)


def kl_to_prior(latents: pd.DataFrame) -> Floats:
    """Return KL(q(z | x) || N(0, I)) in nats of each image and dimension, (N, Z)."""
    moments = (torch.tensor(latent_columns(latents, moment)) for moment in ("mu", "logvar"))
    return np.asarray(kl_by_dimension(*moments))


def evaluate_autoencoder(
    latents: pd.DataFrame, bootstrap: PatientBootstrap
) -> AutoencoderEvaluation:
    """Score the autoencoder.

    Args:
        latents: `latents.parquet`.
        bootstrap: Of the test rows among them.
    """
    test = latents[latents["split"] == "test"]
    val_l1 = latents.loc[latents["split"] == "val", "l1"].to_numpy(dtype=np.float64)
    kl = kl_to_prior(test)
    aggregate = _aggregate(latents[latents["split"] == "train"])
    metrics = {
        "val_l1": mean(val_l1, "no validation image"),
        **{f"test_{name}": _quality(test[name], bootstrap) for name in QUALITY},
        "kl_nats": mean(kl.sum(axis=1), "no test image"),
        "active_units": _active_units(latent_columns(test, "mu")),
        "aggregate_kl_nats": Estimate(aggregate.kl_to_prior())
        if aggregate
        else Estimate.undefined("no train image"),
    }
    per_dim = kl.mean(axis=0) if len(kl) else np.zeros(0)
    return AutoencoderEvaluation(metrics, per_dim, aggregate)


def _quality(column: pd.Series, bootstrap: PatientBootstrap) -> Estimate:
    values = column.to_numpy(dtype=np.float64)
    if np.isnan(values).any():  # all or none: images have one size
        return Estimate.undefined(TOO_SMALL)
    everyone = np.ones(len(values), dtype=bool)
    resamples = bootstrap.mean(values, everyone, "").resamples
    return bootstrap.estimate(mean(values, "no test image"), resamples)


def _aggregate(train: pd.DataFrame) -> AggregatePosterior | None:
    if train.empty:
        return None
    return AggregatePosterior.fit(latent_columns(train, "mu"), latent_columns(train, "logvar"))


def _active_units(mu: Floats) -> Estimate:
    if len(mu) < MIN_IMAGES:
        return Estimate.undefined("fewer than two test images")
    return Estimate(float(num_active_units(torch.tensor(mu))))


@dataclass(frozen=True)
class GroupReconstruction:
    """Mean errors of the reconstructions of some test images.

    Attributes:
        num_images: Images.
        quality: By name in `QUALITY`: `l1` (mean absolute error on [0, 1]), `psnr` (dB), `ssim`,
            and `ms_ssim`.
    """

    num_images: int
    quality: dict[str, Estimate]


def reconstruction_by_group(
    latents: pd.DataFrame,
    images: pd.DataFrame,
    pathologies: tuple[str, ...],
    bootstrap: PatientBootstrap,
) -> dict[str, GroupReconstruction]:
    """Return the errors by view and by finding; a group without a test image is left out.

    Args:
        latents: N rows of `latents.parquet`.
        images: The same N rows, with `split`, `view`, `any_abnormal` and the pathologies.
        pathologies: Their columns.
        bootstrap: Of the test rows among them.
    """
    of_test = (images["split"] == "test").to_numpy()
    test = images[of_test]
    groups = {f"view {view}": (test["view"] == view).fillna(False) for view in ("AP", "PA")}
    groups[NO_LISTED_FINDING] = (test["any_abnormal"] == 0).fillna(False)
    groups |= {name: (test[name] == 1).fillna(False) for name in pathologies}
    quality = {name: latents.loc[of_test, name].to_numpy(dtype=np.float64) for name in QUALITY}
    found = {}
    for name, members in groups.items():
        rows = members.to_numpy(dtype=bool)
        if rows.any():
            means = {score: _mean(values, rows, bootstrap) for score, values in quality.items()}
            found[name] = GroupReconstruction(int(rows.sum()), means)
    return found


def _mean(values: Floats, rows: Rows, bootstrap: PatientBootstrap) -> Estimate:
    if np.isnan(values).any():  # all or none: images have one size
        return Estimate.undefined(TOO_SMALL)
    return bootstrap.mean(values, rows, "no such image")
