"""The training loop of the classifier; it takes minutes at most, so it keeps no checkpoints."""

from __future__ import annotations

import copy
import math
import time

import torch
from torch import Tensor

from cxrmodel.config import ClassifierConfig
from cxrmodel.errors import DataError, DivergedError
from cxrmodel.models.classifier import Classifier
from cxrmodel.progress import Progress, ReportProgress
from cxrmodel.training.batches import MORE_DATA
from cxrmodel.training.classifier.labelled_latents import LabelledLatents
from cxrmodel.training.classifier.losses import has_both, make_loss, mean_average_precision
from cxrmodel.training.randomness import Stream, epoch_order, seed_of

REPORT_EVERY_S = 1.0
PREDICT_BATCH = 8192


class ClassifierTraining:
    """One training of one classifier, all of its data on the device.

    Args:
        config: Settings.
        data: Latents and labels.
        device: Where to compute.
        report: Told about once a second, and at the end.

    Attributes:
        history: `epoch`, `train_loss`, `val_loss` and `val_map` (mean average precision) of each
            finished epoch; the last two are None where validation cannot tell.

    Raises:
        ValueError: Validation lacks what the best epoch or the loss needs.
        DataError: There is no train image.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        data: LabelledLatents,
        device: torch.device,
        report: ReportProgress,
    ) -> None:
        self._config, self._report, self._reported_at = config, report, time.monotonic()
        self._train = tuple(tensor.to(device) for tensor in data.part("train"))
        self._val = tuple(tensor.to(device) for tensor in data.part("val"))
        _check_parts(config, len(self._train[0]), self._val[1])
        self._model = _initial_classifier(config, data).to(device)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self._loss = make_loss(config.loss, self._train[1])
        self.history: list[dict[str, float | None]] = []

    def run(self) -> tuple[Classifier, int]:
        """Train every epoch, or until none has been better for `patience` epochs.

        Returns:
            The network with the weights to publish, and the number of their epoch, from 1.

        Raises:
            DivergedError: The loss is not finite.
        """
        best, best_epoch, best_score = self._model, 0, -math.inf
        for epoch in range(1, self._config.epochs + 1):
            train_loss = self._run_epoch(epoch - 1)
            score = self._validate(epoch, train_loss)
            if score > best_score:
                best, best_epoch, best_score = copy.deepcopy(self._model), epoch, score
            if epoch - best_epoch == self._config.patience:
                break
            self._tell()
        self._tell(is_last=True)
        return best.eval(), best_epoch

    def _run_epoch(self, epoch: int) -> float:
        latents, labels = self._train
        order = torch.from_numpy(epoch_order(self._config.seed, epoch, len(latents)))
        total = torch.zeros((), device=latents.device)
        for batch in torch.split(order.to(latents.device), self._config.batch_size):
            loss = self._loss(self._model(latents[batch]), labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            total += loss.detach() * len(batch)
        return float(total) / len(latents)

    @torch.inference_mode()
    def _validate(self, epoch: int, train_loss: float) -> float:
        """Add an epoch to the history and return its score, the higher the better."""
        latents, labels = self._val
        logits = self._model(latents)
        val_loss = float(self._loss(logits, labels)) if len(latents) else None
        self._check_finite(train_loss, val_loss, epoch)
        val_map = mean_average_precision(logits, labels)
        self.history.append(
            {"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss, "val_map": val_map}
        )
        score = {"last": epoch, "best": val_loss, "best_map": val_map}[self._config.weights]
        assert score is not None  # noqa: S101 - else _check_parts had refused
        return -score if self._config.weights == "best" else score

    def _check_finite(self, train_loss: float, val_loss: float | None, epoch: int) -> None:
        if not math.isfinite(train_loss + (val_loss or 0.0)):
            raise DivergedError(
                f"The classifier diverged: in epoch {epoch} of {self._config.epochs} the train "
                f"loss is {train_loss} and the validation loss {val_loss}. "
                f"{self._remedies()}."
            )

    def _remedies(self) -> str:
        remedies = [f"Lower classifier.lr (now {self._config.lr:g})"]
        if self._config.weight_decay:
            remedies.append(f"lower classifier.weight_decay (now {self._config.weight_decay:g})")
        if not self._config.standardize:
            remedies.append("set classifier.standardize")
        return ", or ".join(remedies)

    def _tell(self, *, is_last: bool = False) -> None:
        now, done = time.monotonic(), len(self.history)
        if now - self._reported_at < REPORT_EVERY_S and not is_last:
            return
        self._reported_at = now
        metrics = {name: value for name, value in self.history[-1].items() if value is not None}
        total = done if is_last else self._config.epochs  # it may have stopped early
        self._report(Progress("classifier", done, total, "epochs", metrics))


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
        raise DataError(f"There is no train image among the latents. Use {MORE_DATA}.")
    more = f"or use {MORE_DATA}."
    if config.weights == "best" and not len(val_labels):
        raise ValueError(
            "classifier.weights is 'best', and the split has no validation image to find the best "
            f"epoch with. Set it to 'last', {more}"
        )
    if config.weights == "best_map" and not has_both(val_labels).any():
        raise ValueError(
            "classifier.weights is 'best_map', and no pathology has both a positive and a negative "
            f"validation image, as average precision needs. Set it to 'best' or 'last', {more}"
        )
    if config.loss != "bce" and not len(val_labels):
        raise ValueError(
            f"classifier.loss is {config.loss!r}, and the split has no validation image to "
            f"recalibrate the probabilities with. Set it to 'bce', {more}"
        )


def _initial_classifier(config: ClassifierConfig, data: LabelledLatents) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(config.seed, Stream.WEIGHTS))
        model = Classifier(data.latents.shape[1], data.labels.shape[1])
    if config.standardize:
        model.standardize_as(data.part("train")[0])
    return model
