"""How fast a loop goes through images, and how long it waits for them and for a core."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from cxrmodel.training.checkpoints import EpochRecord

Batch = TypeVar("Batch")

SPEED = ("images_per_s", "loader_wait")  # of a machine, not of what was learned
SCHEDULER = Path("/proc/thread-self/schedstat")  # nanoseconds run, nanoseconds waited, times run
WAITING_SHARE, WATCHED_S = 0.15, 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """What a meter says at one moment.

    Attributes:
        at_s: When, on a clock of no particular start.
        images: Images so far.
        waited_s: Time spent waiting for them so far.
    """

    at_s: float
    images: int
    waited_s: float

    def rates_since(self, earlier: Reading) -> dict[str, float]:
        """Return images per second and the share of time spent waiting; empty without images."""
        seconds = self.at_s - earlier.at_s
        if self.images == earlier.images or seconds <= 0:
            return {}
        rates = (
            (self.images - earlier.images) / seconds,
            (self.waited_s - earlier.waited_s) / seconds,
        )
        return dict(zip(SPEED, rates, strict=True))


class SpeedMeter:
    """Adds up images and waiting."""

    def __init__(self) -> None:
        self._images, self._waited_s = 0, 0.0

    def read(self) -> Reading:
        """Return where the meter stands."""
        return Reading(time.monotonic(), self._images, self._waited_s)

    def count(self, num_images: int) -> None:
        """Add images that the loop is done with."""
        self._images += num_images

    def waiting(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on, adding up how long the loop waits for each."""
        iterator = iter(batches)
        while True:
            asked_at = time.monotonic()
            batch = next(iterator, None)
            self._waited_s += time.monotonic() - asked_at
            if batch is None:
                return
            yield batch


def typical_speed(history: Iterable[EpochRecord]) -> dict[str, float | None]:
    """Return the medians over epochs of those that were measured."""
    epochs = list(history)
    measured = {
        name: [epoch[name] for epoch in epochs if epoch.get(name) is not None] for name in SPEED
    }
    return {name: statistics.median(of) if of else None for name, of in measured.items()}


class BusyMachine:
    """Notices, from within a loop, that other processes keep its thread from running."""

    def __init__(self) -> None:
        self._waited_s, self._at_s = _waited_s(), time.monotonic()
        self._is_told = False

    def look(self) -> None:
        """Warn once, where the calling thread has waited for a core for much of its time."""
        now, waited_s = time.monotonic(), _waited_s()
        if self._is_told or waited_s is None or self._waited_s is None:
            return
        seconds = now - self._at_s
        if seconds < WATCHED_S:
            return
        share = (waited_s - self._waited_s) / seconds
        self._waited_s, self._at_s = waited_s, now
        if share > WAITING_SHARE and torch.get_num_threads() > 1:
            self._is_told = True
            logger.warning(
                "Other processes use this machine's cores: training waits for one %.0f %% of the "
                "time. Its %d threads then wait for each other as well, which can take many times "
                "as long. Set runtime.num_threads to 1, or to the number of free cores.",
                100 * share,
                torch.get_num_threads(),
            )


def _waited_s() -> float | None:
    """Return how long the calling thread was ready and had no core; None where that is not told."""
    try:
        fields = SCHEDULER.read_text(encoding="ascii").split()
    except OSError:  # of a kernel that does not count, or no Linux
        return None
    return int(fields[1]) / 1e9
