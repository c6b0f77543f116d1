"""The classifier stage: train the multi-label network on the latents, and predict every image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from cxrmodel.config import ClassifierConfig
from cxrmodel.models.classifier import Classifier
from cxrmodel.progress import ReportProgress, silent
from cxrmodel.storage.layout import CLASSIFIER_WEIGHTS_FILE, HISTORY_FILE, PREDICTIONS_FILE
from cxrmodel.training.classifier.calibration import recalibrate
from cxrmodel.training.classifier.labelled_latents import LabelledLatents, read_labelled_latents
from cxrmodel.training.classifier.loop import HISTORY, predict, train_classifier
from cxrmodel.training.devices import deterministic_kernels, resolve_device
from cxrmodel.training.network_files import (
    contiguous_state,
    empty_network,
    read_architecture,
    read_weights,
    write_config,
    write_table,
    write_weights,
)


def fit_classifier(
    config: ClassifierConfig,
    latents: Path,
    index: Path,
    directory: Path,
    *,
    device: str = "auto",
    report: ReportProgress = silent,
) -> dict[str, Any]:
    """Train on the train latents and write a probability of each label for every image.

    A label of which train has no positive or no negative image is left out, with a warning. Where
    nothing is left, the network has no output, and the predictions no column of probabilities.

    Args:
        config: Training.
        latents: Folder of the latents stage.
        index: Folder of the index stage, for the labels.
        directory: Where `classifier.safetensors`, `config.json`, `history.parquet` and
            `predictions.parquet` go.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        report: Called with the number of epochs that are done.

    Returns:
        Numbers of images, labels and epochs, and the published epoch with its losses and mean
        average precision.

    Raises:
        ValueError: There is no such device, or validation lacks what the best epoch or the
            loss needs.
        DataError: There is no train image, or an image has no labels.
        DivergedError: The loss is not finite.
    """
    where = resolve_device(device)
    data = read_labelled_latents(latents, index)
    with deterministic_kernels(where):
        trained = train_classifier(config, data, where, report)
        is_scaled = config.loss != "bce" and data.names
        scaling = recalibrate(trained.model, data) if is_scaled else None
        probabilities = predict(trained.model, data.latents.to(where))
    epoch, history = trained.epoch, trained.history
    write_weights(directory / CLASSIFIER_WEIGHTS_FILE, contiguous_state(trained.model))
    write_table(directory / HISTORY_FILE, pd.DataFrame(history, columns=list(HISTORY)))
    write_table(directory / PREDICTIONS_FILE, _predictions(data, probabilities))
    _write_description(config, data, epoch, where.type, scaling, directory)
    published = history[epoch - 1] if history else {}
    return {
        "num_images": len(data.rows),
        "num_labels": len(data.names),
        "epochs": len(history),
        "published_epoch": epoch,
        **{name: value for name, value in published.items() if name != "epoch"},
    }


def load_classifier(directory: Path) -> Classifier:
    """Return the trained network, in evaluation mode and on the CPU.

    Args:
        directory: Folder of the classifier stage.

    Raises:
        DamagedArtifactError: A file is missing or unreadable, or the two do not fit together.
    """
    sizes = read_architecture(directory, ("latent_dim", "num_labels"))
    return read_weights(empty_network(Classifier, **sizes), directory / CLASSIFIER_WEIGHTS_FILE)


def _predictions(data: LabelledLatents, probabilities: Tensor) -> pd.DataFrame:
    columns = [f"p_{name}" for name in data.names]
    table = pd.DataFrame(probabilities.cpu().numpy(), columns=columns)
    return pd.concat([data.rows.reset_index(drop=True), table], axis="columns")


def _write_description(
    config: ClassifierConfig,
    data: LabelledLatents,
    epoch: int,
    device: str,
    scaling: dict[str, list[float]] | None,
    directory: Path,
) -> None:
    architecture = {"latent_dim": data.latents.shape[1], "num_labels": data.labels.shape[1]}
    write_config(
        directory,
        {
            "architecture": architecture,
            "config": config.key_fields(),
            "device": device,
            "labels": list(data.names),
            "labels_left_out": data.left_out,
            "platt_scaling": scaling,
            "published_epoch": epoch,
        },
    )
