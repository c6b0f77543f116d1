"""How fast a loop goes through images, and how long it waits for them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from cxrmodel.training.checkpoints import EpochRecord

Batch = TypeVar("Batch")

SPEED = ("images_per_s", "loader_wait")  # of a machine, not of what was learned


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
        """Return images a second and the share of the time spent waiting; empty without images."""
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
