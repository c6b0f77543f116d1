"""Whether unusual films are the abnormal ones, and which films the autoencoder renders worst."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.evaluation.audit.estimates import Estimate, PatientDraws, Rows
from cxrmodel.evaluation.audit.latent_probes import distance_from_normal
from cxrmodel.evaluation.autoencoder import QUALITY, TOO_SMALL, kl_to_prior, latent_columns
from cxrmodel.evaluation.metrics import Metric

NO_LISTED_FINDING = "no listed finding"


def score_anomaly(
    latents: pd.DataFrame, images: pd.DataFrame, draws: PatientDraws
) -> dict[str, Estimate]:
    """AUROC for any listed finding, on test, of three measures of how unusual a film is.

    Args:
        latents: N rows of `latents.parquet`.
        images: The same N rows, with `split` and `any_abnormal`.
        draws: Resamples of the test rows among them.

    Returns:
        Of `reconstruction_error` (L1), `kl` (to the prior), and `mahalanobis` (distance of mu from
        the train films with no listed finding), where those are at least two.
    """
    of_test = (images["split"] == "test").to_numpy()
    abnormal = images["any_abnormal"].to_numpy(dtype=np.uint8)
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
        name: draws.auroc(abnormal[of_test], values[of_test], everyone)
        for name, values in scores.items()
    }


@dataclass(frozen=True)
class GroupReconstruction:
    """Mean errors of the reconstructions of some test images.

    Attributes:
        num_images: Images.
        l1: Mean absolute error on [0, 1].
        psnr: Peak signal-to-noise ratio, dB.
        ssim: Structural similarity.
        ms_ssim: The same over five scales.
    """

    num_images: int
    l1: Estimate
    psnr: Estimate
    ssim: Estimate
    ms_ssim: Estimate


def reconstruction_by_group(
    latents: pd.DataFrame,
    images: pd.DataFrame,
    pathologies: tuple[str, ...],
    draws: PatientDraws,
) -> dict[str, GroupReconstruction]:
    """Return the errors by view and by finding; a group without a test image is left out.

    Args:
        latents: N rows of `latents.parquet`.
        images: The same N rows, with `split`, `view`, `any_abnormal` and the pathologies.
        pathologies: Their columns.
        draws: Resamples of the test rows among them.
    """
    of_test = (images["split"] == "test").to_numpy()
    test = images[of_test]
    groups = {f"view {view}": (test["view"] == view).fillna(False) for view in ("AP", "PA")}
    groups[NO_LISTED_FINDING] = test["any_abnormal"] == 0
    groups |= {name: test[name] == 1 for name in pathologies}
    quality = {name: latents.loc[of_test, name].to_numpy(dtype=np.float64) for name in QUALITY}
    found = {}
    for name, members in groups.items():
        rows = members.to_numpy(dtype=bool)
        if rows.any():
            means = (_mean(values, rows, draws) for values in quality.values())
            found[name] = GroupReconstruction(int(rows.sum()), *means)
    return found


def _mean(values: NDArray[np.float64], rows: Rows, draws: PatientDraws) -> Estimate:
    if np.isnan(values).any():  # all or none: images have one size
        return draws.combine(Metric.undefined(TOO_SMALL), np.zeros(0))
    return draws.mean(values, rows, "no such image")
