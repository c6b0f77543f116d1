"""Work done ahead on background threads, in order: batches read before the loop asks for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels


Rows = NDArray[np.int64]
Batch = NDArray[np.uint8]
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    num_workers: int,
    limit: int,
    name: str,
) -> Generator[Result, None, None]:
    """Yield the result of each item, in order, while threads work on the next ones.

    `items` is advanced in the caller's thread.

    Args:
        function: Called with one item, on any thread.
        items: What to work on.
        num_workers: Threads.
        limit: Results held or in progress at most, the next one to yield included.
        name: Prefix of the threads' names.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_workers, thread_name_prefix=name) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= limit:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # the loop ended early, or failed: do not start what nobody wants
            pool.shutdown(cancel_futures=True)


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
    return map_ahead(
        lambda rows: (rows, pixels.read(rows)),
        batches,
        num_workers=prefetch,
        limit=prefetch + 1,
        name="read-ahead",
    )
