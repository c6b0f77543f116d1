"""Every number of a run, computed once, for metrics.json, the figures and the page alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cxrmodel.evaluation.autoencoder import AutoencoderEvaluation, evaluate_autoencoder
from cxrmodel.evaluation.evaluate import METRICS, Difference, Evaluation, compare, evaluate
from cxrmodel.report.inputs import RunTables, leaking_test_fraction


@dataclass(frozen=True)
class Results:
    """The numbers of a run.

    Attributes:
        autoencoder: Reconstruction and latents.
        classifier: The classifier on the latents.
        baselines: `all_positive` and `pca_logistic`, judged as the classifier is.
        differences: The classifier's mean less a baseline's, by baseline and metric.
        leaking_test_fraction: Share of test images whose patient is also in train.
    """

    autoencoder: AutoencoderEvaluation
    classifier: Evaluation
    baselines: dict[str, Evaluation]
    differences: dict[str, dict[str, Difference]]
    leaking_test_fraction: float | None


def measure(tables: RunTables, *, seed: int) -> Results:
    """Compute the numbers; the seed is that of the bootstrap, the same for all, so paired."""
    validation, test = tables.classifier["val"], tables.classifier["test"]
    classifier = evaluate(validation, test, seed=seed)
    baselines = {
        "all_positive": evaluate(validation.with_constant(1), test.with_constant(1), seed=seed),
        "pca_logistic": evaluate(
            tables.pca_logistic["val"], tables.pca_logistic["test"], seed=seed
        ),
    }
    of_test = tables.images["split"] == "test"
    codes = np.unique(tables.images.loc[of_test, "patient_id"], return_inverse=True)[1]
    return Results(
        autoencoder=evaluate_autoencoder(tables.latents, codes.astype(np.int64), seed=seed),
        classifier=classifier,
        baselines=baselines,
        differences={
            name: {metric: compare(classifier, baseline, metric) for metric in METRICS}
            for name, baseline in baselines.items()
        },
        leaking_test_fraction=leaking_test_fraction(tables.images),
    )
