"""The whole audit of one run's test predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.data.label_columns import ANY_ABNORMAL, label_values
from cxrmodel.evaluation.audit.duplicates import Duplicates, find_duplicates
from cxrmodel.evaluation.audit.latents import probe_latents, score_anomaly
from cxrmodel.evaluation.audit.shortcuts import Shortcut, measure_shortcut
from cxrmodel.evaluation.audit.sources import SourceScores, evaluate_sources
from cxrmodel.evaluation.audit.subgroups import (
    Strata,
    Subgroup,
    balanced_threshold,
    evaluate_subgroups,
    strata_of,
    subgroups,
)
from cxrmodel.evaluation.autoencoder import (
    GroupReconstruction,
    latent_columns,
    reconstruction_by_group,
)
from cxrmodel.evaluation.patient_bootstrap import Estimate, Floats, PatientBootstrap
from cxrmodel.evaluation.predictions import Predictions

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels


@dataclass(frozen=True)
class Audit:
    """What was looked for, and found.

    Attributes:
        duplicates: Images that are in test and elsewhere.
        probes: What the latents say about view, sex and age.
        shortcuts: What the score owes to each covariate.
        threshold: Of the score for any listed finding, from validation.
        subgroups: By name.
        anomaly: AUROC of unusualness for any listed finding.
        reconstruction: By view and finding.
        sources: By data set; empty where the run has only one.
    """

    duplicates: Duplicates
    probes: dict[str, Estimate]
    shortcuts: dict[str, Shortcut]
    threshold: Estimate
    subgroups: dict[str, Subgroup]
    anomaly: dict[str, Estimate]
    reconstruction: dict[str, GroupReconstruction]
    sources: dict[str, SourceScores]


def audit_run(
    images: pd.DataFrame,
    hashes: NDArray[np.uint8],
    latents: pd.DataFrame,
    predictions: dict[str, Predictions],
    pixels: Pixels,
    bootstrap: PatientBootstrap,
) -> Audit:
    """Look for leaks and shortcuts, and for groups that are worse off.

    Args:
        images: N rows with `image`, `split`, `crc32`, `age`, `sex`, `view`, `follow_up`,
            `source`, `any_abnormal` and the pathologies.
        hashes: (N, 64), perceptual fingerprints.
        latents: N rows of `latents.parquet`.
        predictions: Of the classifier, by part, in the order of the rows.
        pixels: The images, to compare candidates for duplicates.
        bootstrap: Of the test images.
    """
    test = predictions["test"]
    abnormal = label_values(images, [ANY_ABNORMAL])[:, 0]
    of_val, of_test = ((images["split"] == part).to_numpy() for part in ("val", "test"))
    threshold = balanced_threshold(predictions["val"], abnormal[of_val])
    strata = strata_of(images)
    names = list(images["source"].unique())
    if len(names) > 1:  # which data set an image is of may give its label away
        strata["source"] = images["source"].to_numpy(dtype=object)
    in_test = {kind: values[of_test] for kind, values in strata.items()}
    rates = _train_rates(images, abnormal, strata)
    return Audit(
        find_duplicates(images, hashes, pixels),
        probe_latents(latent_columns(latents, "mu"), images, bootstrap),
        {
            kind: measure_shortcut(test, abnormal[of_test], values, rates[kind], bootstrap)
            for kind, values in in_test.items()
        },
        threshold,
        evaluate_subgroups(test, abnormal[of_test], subgroups(in_test), threshold, bootstrap),
        score_anomaly(latents, images, abnormal, bootstrap),
        reconstruction_by_group(latents, images, test.pathologies, bootstrap),
        evaluate_sources(
            predictions["val"],
            test,
            {name: in_test["source"] == name for name in names if len(names) > 1},
            latents.loc[of_test, "l1"].to_numpy(dtype=np.float64),
            bootstrap,
        ),
    )


def _train_rates(
    images: pd.DataFrame, abnormal: Floats, strata: dict[str, Strata]
) -> dict[str, dict[str, float]]:
    """Return the share of train images with a listed finding by kind and stratum, where known."""
    in_train = (images["split"] == "train").to_numpy() & ~np.isnan(abnormal)
    found = {}
    for kind, values in strata.items():
        shares = pd.Series(abnormal[in_train]).groupby(values[in_train]).mean()
        found[kind] = {str(name): float(share) for name, share in shares.items()}
    return found
