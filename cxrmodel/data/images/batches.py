"""Reads batches ahead of the loop that uses them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels


Rows = NDArray[np.int64]
Batch = NDArray[np.uint8]


def iterate_batches(
    pixels: Pixels, batches: Iterable[Rows], *, prefetch: int = 2
) -> Generator[tuple[Rows, Batch], None, None]:
    """Yield batches in order while background threads read the next ones.

    Holds at most `prefetch` batches besides the one in use. `batches` is advanced in the caller's
    thread, `prefetch` batches ahead: count what was yielded, not what was drawn from it.

    Args:
        pixels: Where to read.
        batches: The (B,) rows of each batch.
        prefetch: How many batches to read ahead, at least 1.

    Yields:
        The rows and their pixels, (B,) and (B, S, S) uint8.

    Raises:
        ValueError: prefetch is below 1.
    """
    if prefetch < 1:
        raise ValueError(f"prefetch must be at least 1, got {prefetch}")
    return _read_ahead(pixels, batches, prefetch)


def _read_ahead(
    pixels: Pixels, batches: Iterable[Rows], prefetch: int
) -> Generator[tuple[Rows, Batch], None, None]:
    waiting: deque[tuple[Rows, Future[Batch]]] = deque()
    with ThreadPoolExecutor(prefetch, thread_name_prefix="read-ahead") as pool:
        try:
            for rows in batches:
                waiting.append((rows, pool.submit(pixels.read, rows)))
                if len(waiting) > prefetch:
                    yield _next(waiting)
            while waiting:
                yield _next(waiting)
        finally:  # the loop ended early, or failed: do not read what nobody wants
            pool.shutdown(cancel_futures=True)


def _next(waiting: deque[tuple[Rows, Future[Batch]]]) -> tuple[Rows, Batch]:
    rows, batch = waiting.popleft()
    return rows, batch.result()
