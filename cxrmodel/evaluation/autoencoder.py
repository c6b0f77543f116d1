"""How well the autoencoder compresses, from its latents alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.evaluation.bootstrap import draw_patients
from cxrmodel.evaluation.intervals import NUM_RESAMPLES, Interval, percentile_interval
from cxrmodel.evaluation.metrics import Metric, mean

ACTIVE_VARIANCE = 0.01
MIN_IMAGES = 2


@dataclass(frozen=True)
class AutoencoderEvaluation:
    """Scores of the autoencoder; the latents' are those of the test images.

    Attributes:
        metrics: `val_l1`, `test_l1` (on [0, 1]), `test_psnr` (dB), `kl_nats` (summed over the
            dimensions), `active_units`.
        test_l1_interval: 95 % interval by a bootstrap over patients, if there is one.
        kl_per_dim: (Z,), nats, mean over test images; empty without a test image.
    """

    metrics: dict[str, Metric]
    test_l1_interval: Interval | None
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
    test_l1 = test["l1"].to_numpy(dtype=np.float64)
    mu = test.filter(regex=r"^mu_\d+$").to_numpy(dtype=np.float64)
    kl = kl_to_prior(mu, test.filter(regex=r"^logvar_\d+$").to_numpy(dtype=np.float64))
    metrics = {
        "val_l1": mean(val_l1, "no validation image"),
        "test_l1": mean(test_l1, "no test image"),
        "test_psnr": mean(test["psnr"].to_numpy(dtype=np.float64), "no test image"),
        "kl_nats": mean(kl.sum(axis=1), "no test image"),
        "active_units": count_active_units(mu),
    }
    per_dim = kl.mean(axis=0) if len(kl) else np.zeros(0)
    return AutoencoderEvaluation(metrics, _mean_interval(test_l1, patients, seed), per_dim)


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
