"""Every number of a run, computed once, for metrics.json, the figures and the page alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cxrmodel.evaluation.audit.audit import Audit, audit_run
from cxrmodel.evaluation.audit.localisation import Localisation
from cxrmodel.evaluation.autoencoder import AutoencoderEvaluation, evaluate_autoencoder
from cxrmodel.evaluation.calibration import Calibration, evaluate_calibration
from cxrmodel.evaluation.evaluate import METRICS, Difference, Evaluation, compare, evaluate
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.report.inputs import RunInputs, RunRecord, RunTables, leaking_test_fraction
from cxrmodel.report.located import locate_errors

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels


@dataclass(frozen=True)
class Results:
    """The numbers of a run.

    Attributes:
        autoencoder: Reconstruction and latents.
        classifier: The classifier on the latents.
        calibration: The classifier's probabilities, before and after scaling.
        baselines: The fitted ones, `all_positive` and `prevalence`, judged as the classifier is.
        differences: The classifier's mean less a baseline's, by baseline and metric.
        audit: Leaks, shortcuts, subgroups and unusual films.
        localisation: Error maps against boxes, as `locate_errors` returns it.
        leaking_test_fraction: Share of test images whose patient is also in train.
    """

    autoencoder: AutoencoderEvaluation
    classifier: Evaluation
    calibration: Calibration
    baselines: dict[str, Evaluation]
    differences: dict[str, dict[str, Difference]]
    audit: Audit
    localisation: dict[str, Localisation]
    leaking_test_fraction: float | None


def measure(
    tables: RunTables, inputs: RunInputs, record: RunRecord, pixels: Pixels, *, seed: int
) -> Results:
    """Compute the numbers.

    Args:
        tables: The stages' files.
        inputs: Their folders.
        record: What is known of the run.
        pixels: The images: candidates for duplicates and films with boxes are read.
        seed: Of the bootstrap; the same for all, so that differences are paired.
    """
    validation, test = tables.classifier["val"], tables.classifier["test"]
    classifier = evaluate(validation, test, seed=seed)
    baselines = {
        name: evaluate(parts["val"], parts["test"], seed=seed)
        for name, parts in _all_baselines(tables).items()
    }
    of_test = tables.images["split"] == "test"
    codes = np.unique(tables.images.loc[of_test, "patient_id"], return_inverse=True)[1]
    return Results(
        autoencoder=evaluate_autoencoder(tables.latents, codes.astype(np.int64), seed=seed),
        classifier=classifier,
        calibration=evaluate_calibration(validation, test, seed=seed),
        baselines=baselines,
        differences={
            name: {metric: compare(classifier, baseline, metric) for metric in METRICS}
            for name, baseline in baselines.items()
        },
        audit=audit_run(
            tables.images, tables.hashes, tables.latents, tables.classifier, pixels, seed=seed
        ),
        localisation=locate_errors(tables, inputs, record, pixels, seed=seed),
        leaking_test_fraction=leaking_test_fraction(tables.images),
    )


def _all_baselines(tables: RunTables) -> dict[str, dict[str, Predictions]]:
    """Return the fitted baselines and the constant ones, the hardest to beat first."""
    parts = tables.classifier
    labels = parts["train"].labels
    prevalence = labels.mean(axis=0) if len(labels) else np.zeros(labels.shape[1])
    constants = {"prevalence": prevalence, "all_positive": np.ones(labels.shape[1])}
    return tables.baselines | {
        name: {part: parts[part].with_constant(constant) for part in ("val", "test")}
        for name, constant in constants.items()
    }
