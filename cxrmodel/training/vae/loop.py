"""The training loop of the autoencoder: from wherever it was left to its last epoch."""

from __future__ import annotations

import logging
import math
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from cxrmodel.data.images.batches import iterate_batches
from cxrmodel.errors import CxrModelError, DivergedError
from cxrmodel.models.vae import center_on
from cxrmodel.progress import Progress, ReportProgress
from cxrmodel.training.batches import SplitRows, in_batches, mean_image
from cxrmodel.training.checkpoints import Checkpoint, CheckpointFolder, EpochRecord
from cxrmodel.training.randomness import epoch_order
from cxrmodel.training.speed import BusyMachine, Reading, SpeedMeter
from cxrmodel.training.vae.settings import ResolvedVAEConfig
from cxrmodel.training.vae.state import no_sums, pack_weights
from cxrmodel.training.vae.step import VAESteps
from cxrmodel.training.vae.validation import validate
from cxrmodel.training.vae.world import World

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

REPORT_EVERY_S = 1.0
MAX_SKIPPED_SHARE, MIN_SKIPPED = 0.1, 10

logger = logging.getLogger(__name__)


class VAETraining:
    """One training of one autoencoder.

    The order of images and the noise are functions of the seed and the step, and a checkpoint
    holds everything else, so a training that was killed ends with the weights of one that was not.

    Args:
        config: Settings.
        pixels: Where the images are.
        rows: Which of them to train on and to validate with.
        checkpoints: Where to leave checkpoints.
        start: Where to go on from, if anywhere.
        steps: The network at its first step.
        world: The processes that train together.
        report: Told about once a second, and at the end of each epoch.
    """

    def __init__(
        self,
        config: ResolvedVAEConfig,
        pixels: Pixels,
        rows: SplitRows,
        checkpoints: CheckpointFolder,
        start: Checkpoint | None,
        steps: VAESteps,
        world: World,
        report: ReportProgress,
    ) -> None:
        self._config, self._pixels, self._rows = config, pixels, rows
        self._checkpoints, self._start = checkpoints, start
        self._steps, self._world, self._report = steps, world, report
        self._steps_per_epoch = config.steps_per_epoch(len(rows.train))
        self._num_steps = self._steps_per_epoch * config.epochs
        self._saved = steps.state
        self._saved_at = time.monotonic()
        self._meter = SpeedMeter()
        self._machine = BusyMachine()
        self._reported = self._meter.read()

    def run(self) -> None:
        """Train to the end, leaving a checkpoint also where that is not reached.

        Raises:
            DivergedError: The loss or a weight is not finite.
        """
        self._go_on()
        try:
            while len(self._steps.state.history) < self._config.epochs:
                self._run_epoch()
        except DivergedError:
            raise
        except BaseException:  # a cancelled flow raises one that is no Exception
            self._save_interrupted()
            raise

    def _go_on(self) -> None:
        checkpoint = self._start
        if checkpoint is None or not self._world.from_leader(self._has_best(checkpoint)):
            if self._config.mean_image:
                center_on(self._steps.model, mean_image(self._pixels, self._rows.train))
            return
        self._steps.go_on_from(checkpoint)
        self._saved = self._steps.state
        logger.info("Training goes on after step %d.", checkpoint.step)

    def _has_best(self, checkpoint: Checkpoint) -> bool:
        if self._config.weights == "last" or checkpoint.best_epoch == 0 or not self._world.leads:
            return True
        best = self._checkpoints.load_best()
        # A later one is reached again: the epochs between repeat themselves.
        return best is not None and best.best_epoch >= checkpoint.best_epoch

    def _images_seen(self) -> int:
        epoch = len(self._steps.state.history)
        steps = self._steps.state.step - epoch * self._steps_per_epoch
        return min(steps * self._config.batch_size, len(self._rows.train))

    def _run_epoch(self) -> None:
        epoch = len(self._steps.state.history)
        order = epoch_order(self._config.seed, epoch, len(self._rows.train))
        remaining = self._rows.train[order][self._images_seen() :]
        batches = list(in_batches(remaining, self._config.batch_size))
        own = (self._world.part_or_first(batch) for batch in batches)
        began = self._meter.read()
        with closing(iterate_batches(self._pixels, own)) as reader:
            for batch, (_, images) in zip(batches, self._meter.waiting(reader), strict=True):
                self._steps.take(images, len(batch))
                self._meter.count(len(batch))
                self._after_batch()
        self._finish_epoch(began)

    def _after_batch(self) -> None:
        if not self._world.leads:
            return
        now = time.monotonic()
        if now - self._reported.at_s >= REPORT_EVERY_S:
            self._report_progress(self._train_metrics())
        if now - self._saved_at >= self._config.checkpoint_every_s:
            self._save()

    def _finish_epoch(self, began: Reading) -> None:
        trained = self._train_metrics()
        if not self._steps.state.sums[2]:  # images that were learned from
            raise self._diverged("no step of this epoch had a gradient that is finite")
        trained |= self._meter.read().rates_since(began)
        self._check_weights()
        validated = validate(
            self._steps, self._pixels, self._rows.val, self._config, self._world, self._after_batch
        )
        state = self._steps.state
        epoch = len(state.history) + 1
        record = {"epoch": epoch, "step": state.step, **trained, **validated}
        is_best = self._is_best(validated["val_loss"])
        if is_best and self._world.leads:
            # Before the state says so: a checkpoint never names a best epoch that is not there.
            self._save_best(epoch)
        self._steps.state = replace(
            state,
            sums=no_sums(state.sums.device),
            history=(*state.history, record),
            best_epoch=epoch if is_best else state.best_epoch,
        )
        if not self._world.leads:
            return
        self._save()
        self._report_progress(record)

    def _is_best(self, val_loss: float | None) -> bool:
        if val_loss is None:
            return False
        if not math.isfinite(val_loss):
            raise self._diverged(f"the validation loss is {val_loss}")
        state = self._steps.state
        best = state.history[state.best_epoch - 1]["val_loss"] if state.best_epoch else None
        return best is None or val_loss < best

    def _train_metrics(self) -> dict[str, float]:
        """Wait for the device and return the means of the running epoch's images so far."""
        l1, kl_nats, num_images, num_skipped = self._steps.state.sums.tolist()
        num_steps = self._steps.state.step - len(self._steps.state.history) * self._steps_per_epoch
        if num_skipped > max(MIN_SKIPPED, MAX_SKIPPED_SHARE * num_steps):
            raise self._diverged(
                f"{num_skipped:.0f} of this epoch's {num_steps} steps had a gradient that is not "
                "finite, and were skipped"
            )
        l1, kl_nats = l1 / max(1, num_images), kl_nats / max(1, num_images)
        loss = l1 + self._config.kl_weight * kl_nats / self._config.latent_dim
        if not math.isfinite(loss):
            raise self._diverged(f"the train loss is {loss}")
        metrics = {"train_l1": l1, "train_kl_nats": kl_nats, "train_loss": loss}
        return {**metrics, **self._steps.rates(), "skipped_steps": num_skipped}

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
            f"The autoencoder diverged: at step {self._steps.state.step} of {self._num_steps} "
            f"{what}. {last}. {self._remedies()}."
        )

    def _remedies(self) -> str:
        config = self._config
        # Not "now": where vae.batch_size is auto, the rate is a multiple of what was set.
        remedies = [f"Lower vae.lr (the learning rate is {config.lr:g})"]
        if config.precision != "float32":
            remedies.append(f"set vae.precision to float32 (now {config.precision})")
        if config.max_grad_norm is None:
            remedies.append("set vae.max_grad_norm to 1, which also skips single bad steps")
        if config.kl_weight > 1:
            remedies.append(f"lower vae.kl_weight (now {config.kl_weight:g})")
        return ", or ".join(remedies)

    def _save(self, *, ends_attempt: bool = False) -> None:
        self._train_metrics()  # never keep a poisoned state
        self._check_weights()
        self._checkpoints.save(self._steps.checkpoint(), ends_attempt=ends_attempt)
        self._saved, self._saved_at = self._steps.state, time.monotonic()

    def _save_best(self, epoch: int) -> None:
        step, weights = self._steps.state.step, pack_weights(self._steps.model)
        best = Checkpoint(step, [], epoch, self._config.batch_size, weights)
        self._checkpoints.save_best(best)

    def _save_interrupted(self) -> None:
        if not self._world.leads:
            return
        try:
            self._steps.settle()
            if self._steps.state is not self._saved:
                self._save(ends_attempt=True)
        except (OSError, RuntimeError, CxrModelError) as error:
            # What interrupted the training is the error to show.
            logger.warning("No checkpoint could be left: %s", error)

    def _report_progress(self, record: EpochRecord) -> None:
        self._machine.look()
        reading = self._meter.read()
        metrics = {
            name.removeprefix("train_"): value
            for name, value in {**reading.rates_since(self._reported), **record}.items()
            if isinstance(value, float | int) and (value or name != "skipped_steps")
        }
        self._reported = reading
        self._report(Progress("vae", self._steps.state.step, self._num_steps, "steps", metrics))
