"""The classifier's own training on principal components instead of latents.

It is fitted here and not among the other baselines, since it has the classifier's settings, which
those do not depend on; it takes a second a thousand images and 20 epochs at most.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory

from cxrmodel.config import ClassifierConfig
from cxrmodel.evaluation.predictions import read_predictions
from cxrmodel.report.inputs import RunInputs, RunRecord, RunTables
from cxrmodel.storage.layout import INDEX_FILE, PCA_LATENTS_FOLDER, PREDICTIONS_FILE
from cxrmodel.training.classifier.fit import fit_classifier

NAME = "pca_network"


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
    index = inputs.index / INDEX_FILE
    with TemporaryDirectory() as directory:
        folder = Path(directory)
        # On the CPU: a report has the same numbers on every machine.
        fit_classifier(
            config, inputs.baselines / PCA_LATENTS_FOLDER, inputs.index, folder, device="cpu"
        )
        names = tables.images["image"].tolist()
        predictions = read_predictions(folder / PREDICTIONS_FILE, index, names)
    return dataclasses.replace(tables, baselines={NAME: predictions, **tables.baselines})
