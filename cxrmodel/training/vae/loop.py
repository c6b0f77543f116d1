"""The training loop of the autoencoder: from wherever it stopped to its last epoch."""

from __future__ import annotations

import logging
import math
import time
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cxrmodel.data.images.batches import iterate_batches
from cxrmodel.errors import CxrModelError, DivergedError
from cxrmodel.progress import ReportProgress
from cxrmodel.training.checkpoints import CheckpointFolder, EpochRecord
from cxrmodel.training.image_batches import SplitRows, in_batches
from cxrmodel.training.randomness import epoch_order
from cxrmodel.training.speed import BusyMachine, ProgressMeter
from cxrmodel.training.vae.auto_settings import ResolvedVAEConfig
from cxrmodel.training.vae.objective import Objective, loss_of_means
from cxrmodel.training.vae.state import TrainingState
from cxrmodel.training.vae.step import VAESteps
from cxrmodel.training.vae.validation import validate
from cxrmodel.training.vae.world import World

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

MAX_SKIPPED_SHARE, MIN_SKIPPED = 0.1, 10

logger = logging.getLogger(__name__)


class VAETraining:
    """One training of one autoencoder.

    The order of images and the noise are functions of the seed and the step, and a checkpoint
    holds everything else, so a training that was killed ends with the weights of one that was not.

    Args:
        config: Settings.
        objective: What to minimise.
        pixels: Where the images are.
        rows: Which of them to train on and to validate with.
        steps: Network and optimiser.
        state: Where training is: at its start, or where a checkpoint left it.
        checkpoints: Where to leave checkpoints.
        world: The processes that train together.
        report: Called about once a second, and at the end of each epoch.
    """

    def __init__(
        self,
        config: ResolvedVAEConfig,
        objective: Objective,
        pixels: Pixels,
        rows: SplitRows,
        steps: VAESteps,
        state: TrainingState,
        checkpoints: CheckpointFolder,
        world: World,
        report: ReportProgress,
    ) -> None:
        self._config, self._objective = config, objective
        self._pixels, self._rows = pixels, rows
        self._steps, self._state = steps, state
        self._checkpoints, self._world = checkpoints, world
        self._steps_per_epoch = config.steps_per_epoch(len(rows.train))
        self._num_steps = self._steps_per_epoch * config.epochs
        self._saved, self._saved_at = state, time.monotonic()
        self._meter = ProgressMeter("vae", self._num_steps, "steps", report)
        self._machine = BusyMachine()

    def run(self) -> TrainingState:
        """Train to the end; leave a checkpoint also where the end is not reached.

        Raises:
            DivergedError: The loss or a weight is not finite.
        """
        try:
            while self._state.num_epochs < self._config.epochs:
                trained = self._train_epoch()
                validated = self._validate()
                self._end_epoch({**trained, **validated})
        except DivergedError:
            raise
        except BaseException:  # a cancelled flow raises one that is no Exception
            self._save_interrupted()
            raise
        return self._state

    def _train_epoch(self) -> EpochRecord:
        """Take the steps that are left of the running epoch, and return its metrics."""
        began = self._meter.read()
        batches = self._batches_left()
        own = (self._world.part_or_first(batch) for batch in batches)
        with closing(iterate_batches(self._pixels, own)) as reader:
            for batch, (_, images) in zip(batches, self._meter.waiting(reader), strict=True):
                self._state = self._steps.take(self._state, images, len(batch))
                self._meter.count(len(batch))
                self._after_batch()
        trained = self._train_metrics()
        if not self._num_counted():
            raise self._diverged("no step of this epoch had a gradient that is finite")
        self._check_weights()
        return {**trained, **self._meter.read().rates_since(began)}

    def _batches_left(self) -> list[NDArray[np.int64]]:
        epoch = self._state.num_epochs
        order = epoch_order(self._config.seed, epoch, len(self._rows.train))
        batches = in_batches(self._rows.train[order], self._config.batch_size)
        return list(batches)[self._state.step - epoch * self._steps_per_epoch :]

    def _validate(self) -> EpochRecord:
        return validate(
            self._steps.reconstruct,
            self._config,
            self._objective,
            self._weights(),
            self._pixels,
            self._rows.val,
            self._world,
            self._after_batch,
        )

    def _after_batch(self) -> None:
        """Report and save where it is time to."""
        if not self._world.leads:
            return
        if self._meter.is_due():
            self._tell(self._train_metrics())
        if time.monotonic() - self._saved_at >= self._config.checkpoint_every_s:
            self._save()

    def _end_epoch(self, metrics: EpochRecord) -> None:
        epoch = self._state.num_epochs + 1
        record = {"epoch": epoch, "step": self._state.step, **metrics}
        is_best = self._is_best(record["val_loss"])
        if is_best and self._world.leads:
            # Before the state says so: a checkpoint never names a best epoch that is not there.
            self._checkpoints.save_best(self._steps.weights_of_epoch(self._state, epoch))
        self._state = self._state.after_epoch(record, is_best=is_best)
        if self._world.leads:
            self._save()
            self._tell(record)

    def _is_best(self, val_loss: float | None) -> bool:
        if val_loss is None:
            return False
        if not math.isfinite(val_loss):
            raise self._diverged(f"the validation loss is {val_loss}")
        best = self._state.best_loss
        return best is None or val_loss < best

    def _weights(self) -> dict[str, float]:
        """Return the weights of the objective's terms in the last step."""
        return self._objective.weights(max(0, self._state.step - 1))

    def _num_counted(self) -> float:
        """Return the number of images of the running epoch that were learned from."""
        return float(self._state.sums[-2])

    def _train_metrics(self) -> dict[str, float]:
        """Wait for the device and return the means of the running epoch's images so far."""
        *sums, num_images, num_skipped = self._state.sums.tolist()
        num_steps = self._state.step - self._state.num_epochs * self._steps_per_epoch
        if num_skipped > max(MIN_SKIPPED, MAX_SKIPPED_SHARE * num_steps):
            raise self._diverged(
                f"{num_skipped:.0f} of this epoch's {num_steps} steps had a gradient that is not "
                "finite, and were skipped"
            )
        weights = self._weights()
        means = {
            name: total / max(1, num_images)
            for name, total in zip(self._objective.terms, sums, strict=True)
        }
        loss = loss_of_means(self._objective, means, weights) if num_images else 0.0
        if not math.isfinite(loss):
            raise self._diverged(f"the train loss is {loss}")
        return {
            **{f"train_{name}": mean for name, mean in means.items()},
            "train_loss": loss,
            "lr": self._steps.lr_at(self._state.step - 1),
            **weights,
            "skipped_steps": num_skipped,
        }

    def _check_weights(self) -> None:
        if not self._steps.are_finite():
            raise self._diverged("a weight is not finite")

    def _diverged(self, what: str) -> DivergedError:
        last = (
            f"The last good checkpoint, of step {self._saved.step}, is {self._checkpoints.last}"
            if self._saved.step
            else "There is no checkpoint yet"
        )
        return DivergedError(
            f"The autoencoder diverged: at step {self._state.step} of {self._num_steps} "
            f"{what}. {last}. {_remedies(self._config)}."
        )

    def _save(self) -> None:
        self._train_metrics()  # never keep a poisoned state
        self._check_weights()
        self._checkpoints.save(self._steps.checkpoint(self._state))
        self._saved, self._saved_at = self._state, time.monotonic()

    def _save_interrupted(self) -> None:
        if not self._world.leads:
            return
        try:
            self._state = self._steps.settle(self._state)
            if self._state is not self._saved:
                self._save()
        except (OSError, RuntimeError, CxrModelError) as error:
            # The error to show is the one that interrupted the training.
            logger.warning("No checkpoint could be left: %s", error)
        self._checkpoints.finish_copies(self._saved.step, self._saved.best_epoch)

    def _tell(self, record: EpochRecord) -> None:
        self._machine.look()
        metrics = {
            name.removeprefix("train_"): value
            for name, value in record.items()
            if isinstance(value, float | int) and (value or name != "skipped_steps")
        }
        self._meter.tell(self._state.step, metrics)


def _remedies(config: ResolvedVAEConfig) -> str:
    # Not "now": where vae.batch_size is auto, the rate is a multiple of what was set.
    remedies = [f"Lower vae.lr (the learning rate is {config.lr:g})"]
    if config.precision != "float32":
        remedies.append(f"set vae.precision to float32 (now {config.precision})")
    if config.max_grad_norm is None:
        remedies.append("set vae.max_grad_norm to 1, which also skips single bad steps")
    if config.kl_weight > 1:
        remedies.append(f"lower vae.kl_weight (now {config.kl_weight:g})")
    return ", or ".join(remedies)
