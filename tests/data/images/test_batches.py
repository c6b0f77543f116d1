import threading
import time

import numpy as np
import pytest

from cxrmodel.data.images.batches import iterate_batches


class RowNumbers:
    """Pixels whose every image is filled with its row; remembers what was read."""

    size = 2

    def __init__(self, fail_at=None):
        self.reads, self.fail_at = [], fail_at
        self.names = [str(row) for row in range(100)]

    def rows_of(self, images):
        return np.array([int(image) for image in images])

    def read(self, rows):
        if self.fail_at in rows:
            raise OSError(f"row {self.fail_at} cannot be read")
        self.reads.append(rows.tolist())
        time.sleep(0.001 * (rows[0] % 3))  # later batches may be ready before earlier ones
        return np.broadcast_to(rows[:, None, None], (len(rows), 2, 2)).astype(np.uint8)


def batches(count=10, size=3):
    return np.arange(count * size).reshape(count, size)


def read_ahead_threads():
    return [t for t in threading.enumerate() if t.name.startswith("read-ahead")]


@pytest.mark.parametrize("prefetch", [1, 2, 5, 50])
def test_gives_every_batch_in_order(prefetch):
    seen = list(iterate_batches(RowNumbers(), batches(), prefetch=prefetch))
    np.testing.assert_array_equal([rows for rows, _ in seen], batches())
    for rows, batch in seen:
        assert batch.shape == (3, 2, 2)
        np.testing.assert_array_equal(batch[:, 0, 0], rows)


def test_no_batches_give_nothing():
    assert list(iterate_batches(RowNumbers(), [])) == []


def test_reads_ahead_but_not_further_than_asked():
    pixels = RowNumbers()
    iterator = iterate_batches(pixels, batches(), prefetch=2)
    next(iterator)
    deadline = time.monotonic() + 5
    while len(pixels.reads) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(pixels.reads) == 3  # the one in use and two ahead
    iterator.close()


def test_an_error_reaches_the_consumer_after_the_batches_before_it():
    seen = []
    with pytest.raises(OSError, match="row 7 cannot be read"):
        for rows, _ in iterate_batches(RowNumbers(fail_at=7), batches()):
            seen.append(rows.tolist())
    assert seen == [[0, 1, 2], [3, 4, 5]]
    assert read_ahead_threads() == []


def test_an_error_of_the_sampler_reaches_the_consumer():
    def sampler():
        yield np.array([0])
        raise ValueError("bad order")

    with pytest.raises(ValueError, match="bad order"):
        list(iterate_batches(RowNumbers(), sampler()))


def test_leaving_the_loop_early_ends_the_threads_and_the_reading():
    pixels = RowNumbers()
    iterator = iterate_batches(pixels, batches(30), prefetch=3)
    next(iterator)
    assert read_ahead_threads()
    iterator.close()
    assert read_ahead_threads() == []
    assert len(pixels.reads) <= 4


def test_prefetch_below_one_is_refused():
    with pytest.raises(ValueError, match="prefetch must be at least 1, got 0"):
        iterate_batches(RowNumbers(), [], prefetch=0)
