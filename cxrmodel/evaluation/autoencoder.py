"""How well the autoencoder compresses, from its latents alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cxrmodel.evaluation.bootstrap import draw_patients
from cxrmodel.evaluation.intervals import NUM_RESAMPLES, Interval, percentile_interval
from cxrmodel.evaluation.metrics import Metric, mean
from cxrmodel.models.posterior import AggregatePosterior, kl_by_dimension, num_active_units
from cxrmodel.models.similarity import MS_SSIM_MIN_PX

MIN_IMAGES = 2
QUALITY = ("l1", "psnr", "ssim", "ms_ssim")
TOO_SMALL = f"images of less than {MS_SSIM_MIN_PX} px a side are too small for five scales"


@dataclass(frozen=True)
class AutoencoderEvaluation:
    """Scores of the autoencoder; the latents' are those of the test images.

    Attributes:
        metrics: `val_l1`, `test_l1` (on [0, 1]), `test_psnr` (dB), `kl_nats` (summed over the
            dimensions), `active_units`; `test_ssim` and `test_ms_ssim`; and `aggregate_kl_nats`,
            the KL of the aggregate posterior of train from the prior.
        intervals: 95 % intervals by a bootstrap over patients, of the scores of reconstructions
            that have one.
        kl_per_dim: (Z,), nats, mean over test images; empty without a test image.
        aggregate: The aggregate posterior of the train images, None without one.
    """

    metrics: dict[str, Metric]
    intervals: dict[str, Interval]
    kl_per_dim: NDArray[np.float64]
    aggregate: AggregatePosterior | None


def latent_columns(latents: pd.DataFrame, moment: str) -> NDArray[np.float64]:
    """Return (N, Z) of `mu` or `logvar`."""
    return latents.filter(regex=rf"^{moment}_\d+$").to_numpy(dtype=np.float64)


def kl_to_prior(latents: pd.DataFrame) -> NDArray[np.float64]:
    """Return KL(q(z | x) || N(0, I)) in nats of each image and dimension, (N, Z)."""
    moments = (torch.tensor(latent_columns(latents, moment)) for moment in ("mu", "logvar"))
    return np.asarray(kl_by_dimension(*moments))


def evaluate_autoencoder(
    latents: pd.DataFrame, patients: NDArray[np.int64], *, seed: int = 0
) -> AutoencoderEvaluation:
    """Score the autoencoder.

    Args:
        latents: `latents.parquet`.
        patients: (T,), the patient of each test row, numbered from 0 upwards.
        seed: Seed of the bootstrap.
    """
    test = latents[latents["split"] == "test"]
    val_l1 = latents.loc[latents["split"] == "val", "l1"].to_numpy(dtype=np.float64)
    found = {name: test[name].to_numpy(dtype=np.float64) for name in QUALITY}
    quality = {f"test_{name}": mean(found[name], "no test image") for name in QUALITY}
    if len(test) and np.isnan(found["ms_ssim"]).any():
        quality["test_ms_ssim"] = Metric.undefined(TOO_SMALL)
    kl = kl_to_prior(test)
    aggregate = _aggregate(latents[latents["split"] == "train"])
    metrics = {
        "val_l1": mean(val_l1, "no validation image"),
        **quality,
        "kl_nats": mean(kl.sum(axis=1), "no test image"),
        "active_units": _active_units(latent_columns(test, "mu")),
        "aggregate_kl_nats": Metric(aggregate.kl_to_prior())
        if aggregate
        else Metric.undefined("no train image"),
    }
    per_dim = kl.mean(axis=0) if len(kl) else np.zeros(0)
    intervals = {
        f"test_{name}": _mean_interval(values, patients, seed)
        for name, values in found.items()
        if quality[f"test_{name}"].value is not None
    }
    known = {name: interval for name, interval in intervals.items() if interval is not None}
    return AutoencoderEvaluation(metrics, known, per_dim, aggregate)


def _aggregate(train: pd.DataFrame) -> AggregatePosterior | None:
    if train.empty:
        return None
    return AggregatePosterior.fit(latent_columns(train, "mu"), latent_columns(train, "logvar"))


def _active_units(mu: NDArray[np.float64]) -> Metric:
    if len(mu) < MIN_IMAGES:
        return Metric.undefined("fewer than two test images")
    return Metric(float(num_active_units(torch.tensor(mu))))


def _mean_interval(
    values: NDArray[np.float64], patients: NDArray[np.int64], seed: int
) -> Interval | None:
    num_patients = int(patients.max(initial=-1)) + 1
    if num_patients <= 1:
        return None
    sums = np.bincount(patients, values)
    counts = np.bincount(patients)
    draws = draw_patients(num_patients, NUM_RESAMPLES, seed)
    return percentile_interval(np.concatenate([(d @ sums) / (d @ counts) for d in draws]))
