"""How many threads compute: as many as are faster than fewer, on a machine that others use too.

The threads of one computation wait for each other many times in each step. Where another process
keeps one of them from its core, all of them wait: two trainings of two threads on two cores took
ten times as long as one after the other. So the threads are tried before they are used.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Thread
from typing import TypeVar

import torch
from torch import nn

from cxrmodel.machine import usable_cores

ROUNDS, MIN_ROUNDS, TURN_S = 5, 2, 0.1
CLEARLY = 1.1  # times as fast; a core that is free gives 1.6 and more
TRIED_FOR_S = 60.0

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_tried: tuple[float, int, int] | None = None  # when, of how many threads, and how many it gave
_told: int | None = None


def use_threads(num_threads: int | None = None) -> int:
    """Let the numerical libraries of this process use as many threads as are free.

    These are the cores that the process may use, or fewer where other processes use them: so many
    as a short trial finds to be fastest. What it found counts for a minute. With OMP_NUM_THREADS
    there is no trial; that many threads are used, as far as there are cores.

    Args:
        num_threads: Number to use whatever else is known; None: find it out.

    Returns:
        The number in use.
    """
    cores = usable_cores()
    threads = num_threads or min(torch.get_num_threads() if _is_set() else cores, cores)
    free = threads if num_threads or _is_set() else _free_threads(threads)
    _set(free)
    _tell(free, threads, cores)
    return free


@contextmanager
def threads(num_threads: int) -> Iterator[None]:
    """Compute with that many threads in this block."""
    before = torch.get_num_threads()
    _set(num_threads)
    try:
        yield
    finally:
        _set(before)


@contextmanager
def beside(work: Callable[[], Result]) -> Iterator[Future[Result]]:
    """Compute on one thread less in this block, while another thread does some work.

    That thread goes on when the block fails, but ends with the process.

    Args:
        work: What to do, on one thread. It should spend its time outside of Python.
    """
    found: Future[Result] = Future()

    def compute() -> None:
        try:
            found.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            found.set_exception(error)

    with threads(max(1, torch.get_num_threads() - 1)):
        Thread(target=compute, name="beside", daemon=True).start()
        yield found


def _is_set() -> bool:
    return bool(os.environ.get("OMP_NUM_THREADS"))


def _set(num_threads: int) -> None:
    if num_threads == torch.get_num_threads():
        return
    torch.set_num_threads(num_threads)
    if find_spec("threadpoolctl"):  # it comes with scikit-learn, which using a model does without
        from threadpoolctl import threadpool_limits  # noqa: PLC0415

        threadpool_limits(limits=num_threads)


def _free_threads(most: int) -> int:
    """Return the number to use now, `most` or a half, a quarter ... of it."""
    global _tried  # noqa: PLW0603 - a trial of one stage serves the next
    now = time.monotonic()
    if _tried is not None and now - _tried[0] < TRIED_FOR_S and _tried[1] == most:
        return _tried[2]
    found = most
    while found > 1 and is_faster_with_fewer(found // 2, found, _work(found)):
        found //= 2
    _tried = now, most, found
    return found


def _work(num_threads: int) -> Callable[[], object]:
    """Return a computation of some milliseconds: a convolution of an image per thread."""
    layer = nn.Conv2d(32, 64, 4, 2, 1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = torch.ones(2 * num_threads, 32, 64, 64).to(memory_format=torch.channels_last)
    return torch.inference_mode()(lambda: layer(features))


def is_faster_with_fewer(fewer: int, more: int, work: Callable[[], object]) -> bool:
    """Say whether some work gets done faster with fewer threads; takes half a second to one.

    Args:
        fewer: Number of threads.
        more: A larger number of threads.
        work: What to repeat, some milliseconds each time.
    """
    done = {more: 0.0, fewer: 0.0}  # repetitions per second, summed over rounds
    for round_number in range(1, ROUNDS + 1):
        for number in done:
            with threads(number):
                done[number] += _rate(work)
        if round_number >= MIN_ROUNDS and done[more] > CLEARLY * done[fewer]:
            return False
    return done[fewer] > CLEARLY * done[more]


def _rate(work: Callable[[], object]) -> float:
    work()
    times, began = 0, time.perf_counter()
    while time.perf_counter() - began < TURN_S:
        work()
        times += 1
    return times / (time.perf_counter() - began)


def _tell(free: int, threads: int, cores: int) -> None:
    global _told  # noqa: PLW0603
    if free == _told:
        return
    _told = free
    why = ""
    if free < threads:
        why = (
            f" {threads} are slower now, since other processes use the cores; "
            "runtime.num_threads sets another number."
        )
    who = "1 thread computes" if free == 1 else f"{free} threads compute"
    logger.info("%s, of %d cores that this process may use.%s", who, cores, why)
