"""Scores per data set, where a run has several.

Source: J. R. Zech et al., Variable generalization performance of a deep learning model to detect
pneumonia in chest radiographs, PLOS Medicine 15 (2018): the score on a mix of hospitals is not that
on each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cxrmodel.evaluation.evaluate import evaluate
from cxrmodel.evaluation.patient_bootstrap import Estimate, Floats, PatientBootstrap, Rows
from cxrmodel.evaluation.predictions import Predictions


@dataclass(frozen=True)
class SourceScores:
    """The test images of one data set.

    Attributes:
        num_images: Images.
        num_patients: Patients.
        num_classes: Labels with a positive and a negative image there, over which AUROC is a mean.
        auroc: Mean over these.
        average_precision: Mean over the labels with a positive image there.
        l1: Mean absolute error of the reconstructions, on [0, 1].
    """

    num_images: int
    num_patients: int
    num_classes: int
    auroc: Estimate
    average_precision: Estimate
    l1: Estimate


def evaluate_sources(
    validation: Predictions,
    test: Predictions,
    sources: dict[str, Rows],
    l1: Floats,
    bootstrap: PatientBootstrap,
) -> dict[str, SourceScores]:
    """Judge the images of each data set alone.

    Args:
        validation: Of the classifier, all data sets together.
        test: N images.
        sources: Which of them are of a data set, (N,), by its name.
        l1: (N,), errors of the reconstructions.
        bootstrap: Of the same images.
    """
    found = {}
    for name, rows in sources.items():
        # Labels of other data sets count as unknown, so that resamples stay paired.
        own = replace(test, labels=np.where(rows[:, None], test.labels, np.nan))
        scores = evaluate(validation, own, bootstrap)
        found[name] = SourceScores(
            int(rows.sum()),
            len(np.unique(test.patients[rows])),
            scores.num_classes["auroc"],
            scores.macro["auroc"],
            scores.macro["average_precision"],
            bootstrap.mean(l1, rows, "no test image"),
        )
    return found
