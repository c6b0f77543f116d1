"""The training loop of the classifier; it takes minutes at most, so it keeps no checkpoints."""

from __future__ import annotations

import copy
import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cxrmodel.config import ClassifierConfig
from cxrmodel.errors import DataError, DivergedError
from cxrmodel.models.classifier import Classifier
from cxrmodel.progress import Progress, ReportProgress
from cxrmodel.training.classifier.labelled_latents import LabelledLatents
from cxrmodel.training.classifier.losses import Loss, has_both, make_loss, mean_average_precision
from cxrmodel.training.image_batches import MORE_DATA
from cxrmodel.training.randomness import Stream, epoch_order, seed_of
from cxrmodel.training.speed import ProgressMeter

PREDICT_BATCH = 8192

logger = logging.getLogger(__name__)

HISTORY = ("epoch", "train_loss", "val_loss", "val_map")

Record = dict[str, float | None]


@dataclass(frozen=True)
class TrainedClassifier:
    """What a training ends with.

    Attributes:
        model: The network with the weights to publish, in evaluation mode, on its device.
        epoch: Number of the epoch of these weights, from 1; 0 where there is nothing to classify.
        history: `epoch`, `train_loss`, `val_loss` and `val_map` (mean average precision) of each
            finished epoch; the last two are None where validation cannot tell. The train loss is
            the mean over the batches.
    """

    model: Classifier
    epoch: int
    history: list[Record]


def train_classifier(
    config: ClassifierConfig, data: LabelledLatents, device: torch.device, report: ReportProgress
) -> TrainedClassifier:
    """Train every epoch, or until none has been better for `patience` epochs.

    Without a label to learn, the network has no output and is not trained.

    Args:
        config: Settings.
        data: Latents and labels; all of them are moved to the device.
        device: Where to compute.
        report: Called about once a second, and at the end.

    Raises:
        ValueError: Validation lacks what the best epoch or the loss needs.
        DataError: There is no train image.
        DivergedError: The loss is not finite.
    """
    if not data.names:
        logger.warning(
            "There is nothing to classify: no label can be learned from the train images"
        )
        return TrainedClassifier(_initial_classifier(config, data).to(device).eval(), 0, [])
    latents, labels = (tensor.to(device) for tensor in data.part("train"))
    val_latents, val_labels = (tensor.to(device) for tensor in data.part("val"))
    _check_parts(config, len(latents), val_labels)
    model = _initial_classifier(config, data).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
    )
    loss = make_loss(config.loss, labels)
    meter = ProgressMeter("classifier", config.epochs, "epochs", report)
    history: list[Record] = []
    best, best_epoch, best_score = model, 0, -math.inf
    for epoch in range(1, config.epochs + 1):
        order = torch.from_numpy(epoch_order(config.seed, epoch - 1, len(latents))).to(device)
        total = torch.zeros((), device=device)
        batches = (torch.split(part[order], config.batch_size) for part in (latents, labels))
        for batch, known in zip(*batches, strict=True):
            mean = loss(model(batch), known)
            mean.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total += mean.detach() * len(batch)
        train_loss = float(total) / len(latents)
        record = _validated(config, model, loss, val_latents, val_labels, epoch, train_loss)
        history.append(record)
        score = _score(config, record)
        if score > best_score:
            best, best_epoch, best_score = copy.deepcopy(model), epoch, score
        if epoch - best_epoch == config.patience:
            break
        if meter.is_due():
            meter.tell(epoch, _shown(record))
    report(Progress("classifier", epoch, epoch, "epochs", _shown(record)))
    return TrainedClassifier(best.eval(), best_epoch, history)


@torch.inference_mode()
def _validated(
    config: ClassifierConfig,
    model: Classifier,
    loss: Loss,
    latents: Tensor,
    labels: Tensor,
    epoch: int,
    train_loss: float,
) -> Record:
    """Return the history's row of an epoch."""
    logits = model(latents)
    val_loss = float(loss(logits, labels)) if len(latents) else None
    if not math.isfinite(train_loss + (val_loss or 0.0)):
        raise DivergedError(
            f"The classifier diverged: in epoch {epoch} of {config.epochs} the train loss is "
            f"{train_loss} and the validation loss {val_loss}. {_remedies(config)}."
        )
    val_map = mean_average_precision(logits, labels)
    return {"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss, "val_map": val_map}


def _score(config: ClassifierConfig, record: Record) -> float:
    """Return what chooses the epoch to publish, the higher the better."""
    if config.weights == "last":
        return float(record["epoch"] or 0)
    chosen = record["val_loss" if config.weights == "best" else "val_map"]
    assert chosen is not None  # noqa: S101 - otherwise _check_parts had refused
    return -chosen if config.weights == "best" else chosen


def _shown(record: Record) -> dict[str, float]:
    return {name: value for name, value in record.items() if value is not None}


def _remedies(config: ClassifierConfig) -> str:
    remedies = [f"Lower classifier.lr (now {config.lr:g})"]
    if config.weight_decay:
        remedies.append(f"lower classifier.weight_decay (now {config.weight_decay:g})")
    if not config.standardize:
        remedies.append("set classifier.standardize")
    return ", or ".join(remedies)


@torch.inference_mode()
def predict(model: Classifier, latents: Tensor) -> Tensor:
    """Return the probability of each pathology.

    Args:
        model: In evaluation mode, on its device.
        latents: (N, Z), float32, on the same device.

    Returns:
        (N, K), float32 in [0, 1].
    """
    batches = torch.split(latents, PREDICT_BATCH)
    return torch.cat([model(batch).sigmoid() for batch in batches])


def _check_parts(config: ClassifierConfig, num_train: int, val_labels: Tensor) -> None:
    if not num_train:
        raise DataError(f"There is no labelled train image among the latents. Use {MORE_DATA}.")
    more = f"or use {MORE_DATA}."
    if config.weights == "best" and not len(val_labels):
        raise ValueError(
            "classifier.weights is 'best', and the split has no labelled validation image to find "
            f"the best epoch with. Set it to 'last', {more}"
        )
    if config.weights == "best_map" and not has_both(val_labels).any():
        raise ValueError(
            "classifier.weights is 'best_map', and no label has both a positive and a negative "
            f"validation image, as average precision needs. Set it to 'best' or 'last', {more}"
        )
    if config.loss != "bce" and not len(val_labels):
        raise ValueError(
            f"classifier.loss is {config.loss!r}, and the split has no labelled validation "
            f"image to recalibrate the probabilities with. Set it to 'bce', {more}"
        )


def _initial_classifier(config: ClassifierConfig, data: LabelledLatents) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(config.seed, Stream.WEIGHTS))
        model = Classifier(data.latents.shape[1], data.labels.shape[1])
    if config.standardize:
        model.standardize_as(data.part("train")[0])
    return model
