"""Every number of a run, computed once: metrics.json, the figures and the page all read these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cxrmodel.data.label_columns import ANY_ABNORMAL
from cxrmodel.evaluation.audit.audit import Audit, audit_run
from cxrmodel.evaluation.audit.localisation import (
    PLACED,
    ErrorMaps,
    Localisation,
    boxes_on_square,
    localise,
)
from cxrmodel.evaluation.autoencoder import AutoencoderEvaluation, evaluate_autoencoder
from cxrmodel.evaluation.calibration import Calibration, evaluate_calibration
from cxrmodel.evaluation.cooccurrence import Cooccurrence, count_cooccurrence
from cxrmodel.evaluation.evaluate import Evaluation, evaluate
from cxrmodel.evaluation.metrics import METRICS
from cxrmodel.evaluation.patient_bootstrap import FEW_PATIENTS, Estimate, Floats, PatientBootstrap
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.report.run import Run
from cxrmodel.training.devices import keep_freed_memory
from cxrmodel.training.encoding import Coder, load_vae

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels


TEST, OUTSIDE_TRAIN = "test", "outside_train"


@dataclass(frozen=True)
class Part:
    """A part of the split.

    Attributes:
        num_images: Its images.
        num_patients: Their patients.
        num_known: Its images of which it is known whether they have a finding.
        abnormal_share: Share of these with one, None without any.
    """

    num_images: int
    num_patients: int
    num_known: int
    abnormal_share: float | None


@dataclass(frozen=True)
class Results:
    """The numbers of a run.

    Attributes:
        num_patients: Patients of all used images.
        known_of_people: Which of `age`, `sex` and `view` is known of any image.
        parts: `train`, `val` and `test`.
        leaking_test_fraction: Share of test images whose patient is also in train, None without a
            test image.
        autoencoder: Reconstruction and latents.
        classifier: The classifier on the latents.
        calibration: The classifier's probabilities, before and after scaling.
        baselines: The hardest to beat first, evaluated as the classifier is.
        differences: The classifier's mean less a baseline's, by baseline and metric.
        cooccurrence: Of the findings on test, in the labels and as the classifier calls them.
        audit: Leaks, shortcuts, subgroups and unusual images.
        localisation: Error maps against boxes, as `locate_errors` returns it.
    """

    num_patients: int
    known_of_people: tuple[str, ...]
    parts: dict[str, Part]
    leaking_test_fraction: float | None
    autoencoder: AutoencoderEvaluation
    classifier: Evaluation
    calibration: Calibration
    baselines: dict[str, Evaluation]
    differences: dict[str, dict[str, Estimate]]
    cooccurrence: Cooccurrence
    audit: Audit
    localisation: dict[str, Localisation]


def measure(
    run: Run, pixels: Pixels, *, seed: int, begin: Callable[[str], None] = lambda _: None
) -> Results:
    """Compute the numbers.

    Args:
        run: What was read.
        pixels: The images: candidates for duplicates and images with boxes are read.
        seed: Of the bootstrap.
        begin: Told what is measured next.
    """
    validation, test = run.predictions["val"], run.predictions["test"]
    begin("metrics and intervals of the classifier")
    bootstrap = PatientBootstrap(test.patients, seed=seed)  # of all, so that all are paired
    classifier = evaluate(validation, test, bootstrap)
    begin("metrics and intervals of the baselines")
    baselines = {
        name: evaluate(parts["val"], parts["test"], bootstrap)
        for name, parts in _baseline_predictions(run).items()
    }
    begin("quality of the reconstructions")
    autoencoder = evaluate_autoencoder(run.latents, bootstrap)
    begin("calibration")
    calibration = evaluate_calibration(validation, test, bootstrap)
    begin("audit: duplicates, shortcuts, subgroups")
    audit = audit_run(run.images, run.hashes, run.latents, run.predictions, pixels, bootstrap)
    begin("error maps against boxes")
    localisation = locate_errors(run, pixels, seed=seed)
    return Results(
        num_patients=int(run.images["patient_id"].nunique()),
        known_of_people=run.known_of_people,
        parts={part: _count(run.images, part) for part in ("train", "val", "test")},
        leaking_test_fraction=leaking_test_fraction(run.images),
        autoencoder=autoencoder,
        classifier=classifier,
        calibration=calibration,
        baselines=baselines,
        differences={
            name: {
                metric: bootstrap.difference(classifier.macro[metric], baseline.macro[metric])
                for metric in METRICS
            }
            for name, baseline in baselines.items()
        },
        cooccurrence=count_cooccurrence(test, _limits(classifier)),
        audit=audit,
        localisation=localisation,
    )


def _limits(classifier: Evaluation) -> Floats:
    """Return the thresholds of the classes, NaN where there is none."""
    thresholds = [entry.metrics["threshold"].value for entry in classifier.per_class.values()]
    return np.array(thresholds, dtype=np.float64)


def _count(images: pd.DataFrame, part: str) -> Part:
    of_part = images[images["split"] == part]
    known = of_part[ANY_ABNORMAL].dropna()
    share = float(known.mean()) if len(known) else None
    return Part(len(of_part), int(of_part["patient_id"].nunique()), len(known), share)


def leaking_test_fraction(images: pd.DataFrame) -> float | None:
    """Share of test images whose patient is also in train; None without a test image."""
    test = images.loc[images["split"] == "test", "patient_id"]
    train = set(images.loc[images["split"] == "train", "patient_id"])
    return float(test.isin(train).mean()) if len(test) else None


def _baseline_predictions(run: Run) -> dict[str, dict[str, Predictions]]:
    """Return the fitted baselines and the constant ones, the hardest to beat first."""
    parts = run.predictions
    train = parts["train"]
    positive, known = (train.labels == 1).sum(axis=0), train.known.sum(axis=0)
    prevalence = positive / np.maximum(known, 1)
    constants = {"prevalence": prevalence, "all_positive": np.ones(len(known))}
    fitted = dict(run.baseline_predictions)
    if not run.known_of_people:
        fitted.pop("metadata", None)  # it had nothing to learn from
    return {
        **fitted,
        **{
            name: {part: parts[part].with_constant(constant) for part in ("val", "test")}
            for name, constant in constants.items()
        },
    }


def locate_errors(run: Run, pixels: Pixels, *, seed: int) -> dict[str, Localisation]:
    """Compare the error maps of images that have boxes with their boxes.

    Args:
        run: What was read.
        pixels: The images; those with a box are read, a few at a time.
        seed: Of the bootstrap.

    Returns:
        `test`; and where fewer than ten test patients have boxes `outside_train`, which is test and
        validation together. Nothing where no image has a box.
    """
    if run.boxes.empty:
        return {}
    placed = boxes_on_square(run.boxes, run.record.fit)
    boxes = run.boxes.assign(**dict(zip(PLACED, placed.T, strict=True)))
    error_maps = _error_maps(run.inputs.vae, pixels)
    of_test = boxes[boxes["split"] == "test"]
    with keep_freed_memory(torch.device("cpu")):
        found = {TEST: localise(of_test, error_maps, seed=seed)}
        if of_test["patient_id"].nunique() < FEW_PATIENTS:
            others = boxes[boxes["split"] != "train"]
            found[OUTSIDE_TRAIN] = localise(others, error_maps, seed=seed)
    return found


def _error_maps(directory: Path, pixels: Pixels) -> ErrorMaps:
    # The same numbers on every machine.
    coder = Coder(load_vae(directory), torch.device("cpu"), "float32")

    def error_maps(images: Sequence[str]) -> NDArray[np.float32]:
        originals = coder.load(pixels.read(pixels.rows_of(images)))  # (B, 1, S, S)
        decoded = coder.decode(coder.encode(originals)[0])
        return np.asarray((decoded - originals).abs()[:, 0].numpy())

    return error_maps
