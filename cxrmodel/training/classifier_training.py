"""The training loop of the classifier; it takes minutes at most, so it keeps no checkpoints."""

from __future__ import annotations

import copy
import math
import time

import torch
from torch import Tensor, nn

from cxrmodel.config import ClassifierConfig
from cxrmodel.errors import DataError, DivergedError
from cxrmodel.models.classifier import Classifier
from cxrmodel.progress import Progress, ReportProgress
from cxrmodel.training.labelled_latents import LabelledLatents
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
        history: `epoch`, `train_loss` and `val_loss` of each finished epoch.

    Raises:
        ValueError: The best epoch is asked for, and there is no validation image to find it with.
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
        _check_parts(config, len(self._train[0]), len(self._val[0]))
        self._model = _initial_classifier(config, data).to(device)
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=config.lr, fused=True)
        self._loss = nn.BCEWithLogitsLoss()
        self.history: list[dict[str, float | None]] = []

    def run(self) -> tuple[Classifier, int]:
        """Train every epoch.

        Returns:
            The network with the weights to publish, and the number of their epoch, from 1.

        Raises:
            DivergedError: The loss is not finite.
        """
        best, best_epoch, best_loss = self._model, 0, math.inf
        for epoch in range(self._config.epochs):
            train_loss, val_loss = self._run_epoch(epoch), self._val_loss()
            self._check_finite(train_loss, val_loss, epoch)
            self.history.append(
                {"epoch": epoch + 1, "train_loss": train_loss, "val_loss": val_loss}
            )
            if val_loss is not None and val_loss < best_loss:
                best, best_epoch, best_loss = copy.deepcopy(self._model), epoch + 1, val_loss
            self._tell()
        if self._config.weights == "best":
            return best.eval(), best_epoch
        return self._model.eval(), self._config.epochs

    def _run_epoch(self, epoch: int) -> float:
        latents, labels = self._train
        order = torch.from_numpy(epoch_order(self._config.seed, epoch, len(latents)))
        total = torch.zeros((), device=latents.device)
        for batch in torch.split(order.to(latents.device), self._config.batch_size):
            loss = self._loss(self._model(latents[batch]), labels[batch])
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            total += loss.detach() * len(batch)
        return float(total) / len(latents)

    @torch.inference_mode()
    def _val_loss(self) -> float | None:
        latents, labels = self._val
        return float(self._loss(self._model(latents), labels)) if len(latents) else None

    def _check_finite(self, train_loss: float, val_loss: float | None, epoch: int) -> None:
        if not math.isfinite(train_loss + (val_loss or 0.0)):
            raise DivergedError(
                f"The classifier diverged: in epoch {epoch + 1} of {self._config.epochs} the train "
                f"loss is {train_loss} and the validation loss {val_loss}. "
                f"Lower classifier.lr (now {self._config.lr:g}), or set classifier.standardize."
            )

    def _tell(self) -> None:
        now, done = time.monotonic(), len(self.history)
        if now - self._reported_at < REPORT_EVERY_S and done < self._config.epochs:
            return
        self._reported_at = now
        metrics = {name: value for name, value in self.history[-1].items() if value is not None}
        self._report(Progress("classifier", done, self._config.epochs, "epochs", metrics))


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


def _check_parts(config: ClassifierConfig, num_train: int, num_val: int) -> None:
    if not num_train:
        raise DataError("There is no train image among the latents. Raise data.fraction.")
    if config.weights == "best" and not num_val:
        raise ValueError(
            "classifier.weights is 'best', and the split has no validation image to find the best "
            "epoch with. Set it to 'last', or use more of the data: raise data.fraction."
        )


def _initial_classifier(config: ClassifierConfig, data: LabelledLatents) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(config.seed, Stream.WEIGHTS))
        model = Classifier(data.latents.shape[1], data.labels.shape[1])
    if config.standardize:
        model.standardize_as(data.part("train")[0])
    return model
