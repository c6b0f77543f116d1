"""Every number of a run, computed once, for metrics.json, the figures and the page alike."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cxrmodel.config import ClassifierConfig
from cxrmodel.evaluation.audit.audit import Audit, audit_run
from cxrmodel.evaluation.audit.localisation import (
    PLACED,
    ErrorMap,
    Localisation,
    boxes_on_square,
    localise,
)
from cxrmodel.evaluation.autoencoder import AutoencoderEvaluation, evaluate_autoencoder
from cxrmodel.evaluation.calibration import Calibration, evaluate_calibration
from cxrmodel.evaluation.evaluate import Evaluation, evaluate
from cxrmodel.evaluation.metrics import METRICS
from cxrmodel.evaluation.patient_bootstrap import FEW_PATIENTS, Estimate, PatientBootstrap
from cxrmodel.evaluation.predictions import Predictions, read_predictions
from cxrmodel.evaluation.resolution import to_unit
from cxrmodel.report.run import RunInputs, RunRecord, RunTables, leaking_test_fraction
from cxrmodel.training.classifier.fit import PREDICTIONS_FILE, fit_classifier
from cxrmodel.training.encoding import load_vae, reconstruct

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
    differences: dict[str, dict[str, Estimate]]
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
        seed: Of the bootstrap.
    """
    validation, test = tables.classifier["val"], tables.classifier["test"]
    bootstrap = PatientBootstrap(test.patients, seed=seed)  # of all, so that all are paired
    classifier = evaluate(validation, test, bootstrap)
    baselines = {
        name: evaluate(parts["val"], parts["test"], bootstrap)
        for name, parts in _all_baselines(tables).items()
    }
    return Results(
        autoencoder=evaluate_autoencoder(tables.latents, bootstrap),
        classifier=classifier,
        calibration=evaluate_calibration(validation, test, bootstrap),
        baselines=baselines,
        differences={
            name: {
                metric: bootstrap.difference(classifier.macro[metric], baseline.macro[metric])
                for metric in METRICS
            }
            for name, baseline in baselines.items()
        },
        audit=audit_run(
            tables.images, tables.hashes, tables.latents, tables.classifier, pixels, bootstrap
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


TEST, OUTSIDE_TRAIN = "test", "outside_train"


def locate_errors(
    tables: RunTables, inputs: RunInputs, record: RunRecord, pixels: Pixels, *, seed: int
) -> dict[str, Localisation]:
    """Compare the error maps of boxed films with their boxes.

    Args:
        tables: The stages' files.
        inputs: Their folders.
        record: Holds how files became square.
        pixels: The images; those with a box are read, one at a time.
        seed: Of the bootstrap.

    Returns:
        `test`; and where that has boxes of fewer than ten patients `outside_train`, which is test
        and validation together. Nothing where no film has a box.
    """
    if tables.boxes.empty:
        return {}
    placed = boxes_on_square(tables.boxes, record.fit)
    boxes = tables.boxes.assign(**dict(zip(PLACED, placed.T, strict=True)))
    error_map = _error_maps(inputs, pixels)
    of_test = boxes[boxes["split"] == "test"]
    found = {TEST: localise(of_test, error_map, seed=seed)}
    if of_test["patient_id"].nunique() < FEW_PATIENTS:
        others = boxes[boxes["split"] != "train"]
        found[OUTSIDE_TRAIN] = localise(others, error_map, seed=seed)
    return found


def _error_maps(inputs: RunInputs, pixels: Pixels) -> ErrorMap:
    vae = load_vae(inputs.vae)

    def error_map(image: str) -> NDArray[np.float32]:
        original = pixels.read(pixels.rows_of([image]))  # (1, S, S)
        decoded = reconstruct(vae, original, device="cpu")  # the same numbers on every machine
        return np.asarray(np.abs(decoded - to_unit(original))[0])

    return error_map


PCA_NETWORK = "pca_network"
PCA_LATENTS = "pca_latents"


def with_pca_network(tables: RunTables, inputs: RunInputs, record: RunRecord) -> RunTables:
    """Return the tables with one more baseline; the same ones where there is nothing to judge.

    Args:
        tables: The stages' files.
        inputs: Their folders.
        record: Holds the classifier's settings.
    """
    num_components = tables.reconstruction["num_components"]
    if not (num_components and tables.classifier["val"].num_images):
        return tables
    config = ClassifierConfig(**record.config.get("classifier", {}))
    index = inputs.index / "index.parquet"
    with TemporaryDirectory() as directory:
        folder = Path(directory)
        # On the CPU: a report has the same numbers on every machine.
        fit_classifier(config, inputs.baselines / PCA_LATENTS, inputs.index, folder, device="cpu")
        names = tables.images["image"].tolist()
        predictions = read_predictions(folder / PREDICTIONS_FILE, index, names)
    return dataclasses.replace(tables, baselines={PCA_NETWORK: predictions, **tables.baselines})
