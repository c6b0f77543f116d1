"""How well the autoencoder compresses, from its latents alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.evaluation.bootstrap import draw_patients
from cxrmodel.evaluation.intervals import NUM_RESAMPLES, Interval, percentile_interval
from cxrmodel.evaluation.metrics import Metric, mean
from cxrmodel.models.similarity import MS_SSIM_MIN_PX

ACTIVE_VARIANCE = 0.01
MIN_IMAGES = 2
QUALITY = ("l1", "psnr", "ssim", "ms_ssim")
TOO_SMALL = f"images of less than {MS_SSIM_MIN_PX} px a side are too small for five scales"


@dataclass(frozen=True)
class AutoencoderEvaluation:
    """Scores of the autoencoder; the latents' are those of the test images.

    Attributes:
        metrics: `val_l1`, `test_l1` (on [0, 1]), `test_psnr` (dB), `kl_nats` (summed over the
            dimensions), `active_units`; and `test_ssim` and `test_ms_ssim`.
        intervals: 95 % intervals by a bootstrap over patients, of the scores of reconstructions
            that have one.
        kl_per_dim: (Z,), nats, mean over test images; empty without a test image.
    """

    metrics: dict[str, Metric]
    intervals: dict[str, Interval]
    kl_per_dim: NDArray[np.float64]


def kl_to_prior(mu: NDArray[np.float64], logvar: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(N(mu, exp(logvar)) || N(0, 1)) in nats, element by element."""
    return np.asarray(0.5 * (mu**2 + np.exp(logvar) - 1 - logvar))


def count_active_units(mu: NDArray[np.float64]) -> Metric:
    """Count dimensions whose posterior mean varies between images, by more than 0.01.

    Source: Y. Burda et al., Importance Weighted Autoencoders, ICLR 2016, section 5.2.

    Args:
        mu: (N, Z).
    """
    if len(mu) < MIN_IMAGES:
        return Metric.undefined("fewer than two test images")
    return Metric(float((mu.var(axis=0) > ACTIVE_VARIANCE).sum()))


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
    mu = test.filter(regex=r"^mu_\d+$").to_numpy(dtype=np.float64)
    kl = kl_to_prior(mu, test.filter(regex=r"^logvar_\d+$").to_numpy(dtype=np.float64))
    metrics = {
        "val_l1": mean(val_l1, "no validation image"),
        **quality,
        "kl_nats": mean(kl.sum(axis=1), "no test image"),
        "active_units": count_active_units(mu),
    }
    per_dim = kl.mean(axis=0) if len(kl) else np.zeros(0)
    intervals = {
        f"test_{name}": _mean_interval(values, patients, seed)
        for name, values in found.items()
        if quality[f"test_{name}"].value is not None
    }
    known = {name: interval for name, interval in intervals.items() if interval is not None}
    return AutoencoderEvaluation(metrics, known, per_dim)


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
