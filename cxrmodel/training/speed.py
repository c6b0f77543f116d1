"""How fast a loop goes through images, how long it waits for them, and its reports of that."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from cxrmodel.progress import Progress, ReportProgress
from cxrmodel.training.checkpoints import EpochRecord

Batch = TypeVar("Batch")

REPORT_EVERY_S = 1.0
SPEED = ("images_per_s", "loader_wait")  # they depend on the machine, not on what was learned
SCHEDULER = Path("/proc/thread-self/schedstat")  # nanoseconds run, nanoseconds waited, times run
WAITING_SHARE, WATCHED_S = 0.15, 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """The counters of a meter at one moment.

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


class ProgressMeter:
    """Counts the images of a loop and its waiting for them, and reports them with its progress.

    Args:
        stage: Name of the stage.
        total: Units in all.
        unit: What is counted, in the plural.
        report: Receives the reports.

    Attributes:
        total: Units in all.
    """

    def __init__(self, stage: str, total: int, unit: str, report: ReportProgress) -> None:
        self.total, self._stage, self._unit, self._report = total, stage, unit, report
        self._images, self._waited_s = 0, 0.0
        self._reported = self.read()

    def read(self) -> Reading:
        """Return the counters as they are now."""
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

    def is_due(self) -> bool:
        """Say whether the last report is about a second old."""
        return time.monotonic() - self._reported.at_s >= REPORT_EVERY_S

    def tell(self, done: int, metrics: Mapping[str, float] | None = None) -> None:
        """Report how many units are done, with the speed since the last report."""
        reading = self.read()
        metrics = {**reading.rates_since(self._reported), **(metrics or {})}
        self._reported = reading
        self._report(Progress(self._stage, done, self.total, self._unit, metrics))


def typical_speed(history: Iterable[EpochRecord]) -> dict[str, float | None]:
    """Return the medians over the epochs whose speed was measured."""
    epochs = list(history)
    measured = {
        name: [epoch[name] for epoch in epochs if epoch.get(name) is not None] for name in SPEED
    }
    return {name: statistics.median(of) if of else None for name, of in measured.items()}


class BusyMachine:
    """Notices, from within a loop, that other processes keep its thread from running."""

    def __init__(self) -> None:
        self._waited_s, self._at_s = _waited_s(), time.monotonic()
        self._has_warned = False

    def look(self) -> None:
        """Warn once if the calling thread has waited for a core for much of its time."""
        now, waited_s = time.monotonic(), _waited_s()
        if self._has_warned or waited_s is None or self._waited_s is None:
            return
        seconds = now - self._at_s
        if seconds < WATCHED_S:
            return
        share = (waited_s - self._waited_s) / seconds
        self._waited_s, self._at_s = waited_s, now
        if share > WAITING_SHARE and torch.get_num_threads() > 1:
            self._has_warned = True
            logger.warning(
                "Other processes use this machine's cores: training waits for one %.0f %% of the "
                "time. Its %d threads then wait for each other as well, which can take many times "
                "as long. Set runtime.num_threads to 1, or to the number of free cores.",
                100 * share,
                torch.get_num_threads(),
            )


def _waited_s() -> float | None:
    """Return how long the calling thread was ready but had no core; None if it is not counted."""
    try:
        fields = SCHEDULER.read_text(encoding="ascii").split()
    except OSError:  # the kernel does not count it, or is not Linux
        return None
    return int(fields[1]) / 1e9
