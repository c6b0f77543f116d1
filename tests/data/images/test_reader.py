import os
import threading
import time

import numpy as np
import pytest

from cxrmodel.config import ImagesConfig
from cxrmodel.data.files.root import Root
from cxrmodel.data.images.reader import IN_FLIGHT_BYTES, MAX_IN_FLIGHT, Decoded, ImageReader
from cxrmodel.errors import ChecksumError
from tests.data.images.image_bytes import encode

CONFIG = ImagesConfig(size=64)


@pytest.fixture
def reader(make_root, index_of, tmp_path):
    return ImageReader(CONFIG, str(tmp_path / "data"), index_of(make_root(6)), 2)


@pytest.mark.parametrize("spoil", [lambda data: data[:50], lambda data: b"\0" + data[1:]])
def test_a_transfer_that_went_wrong_once_is_repeated(spoil, reader, monkeypatch):
    whole, calls = Root.read, []

    def read(root, uri, limit=None, *, version=""):
        calls.append(uri)
        data = whole(root, uri, limit, version=version)
        return spoil(data) if len(calls) == 1 else data

    monkeypatch.setattr(Root, "read", read)
    assert reader.decode(0).status == "ok"
    assert len(calls) == 2


def test_a_store_out_of_reach_raises_and_says_at_which_image(reader, monkeypatch):
    def read(root, uri, limit=None, *, version=""):
        raise TimeoutError("no answer")

    monkeypatch.setattr(Root, "read", read)
    with pytest.raises(TimeoutError, match="no answer") as caught:
        reader.decode(0)
    assert "while reading images/00000001_000.png" in caught.value.__notes__[0]


def test_many_are_decoded_in_the_given_order(reader):
    rows = [4, 0, 5, 1]
    assert [decoded.row for decoded in reader.decode_many(rows)] == rows


def test_an_empty_file_is_damaged(reader, tmp_path):
    reader._files[0] = reader._files[0]._replace(bytes=0)
    assert (reader.decode(0).status, reader.decode(0).detail) == (
        "damaged_image",
        "the file is empty",
    )


def test_a_file_that_stays_damaged_on_its_way_is_unreadable_with_the_reason(reader, monkeypatch):
    def read(root, uri, limit=None, *, version=""):
        raise ChecksumError("it came damaged 3 times")

    monkeypatch.setattr(Root, "read", read)
    assert (reader.decode(0).status, reader.decode(0).detail) == (
        "unreadable",
        "it came damaged 3 times",
    )


def test_a_file_replaced_since_it_was_listed_is_never_taken_for_it(reader, tmp_path):
    path = tmp_path / "data/images/00000001_000.png"
    path.write_bytes(path.read_bytes())  # the same bytes even: its time is another
    assert reader.decode(0).status == "replaced"
    assert reader.decode(1).status == "ok"


@pytest.mark.parametrize("pixels", [np.full((64, 64), 90), np.arange(64 * 64) // 512 + 90])
def test_an_image_of_one_grey_or_nearly_is_of_low_contrast(pixels, make_root, index_of):
    root = make_root(6)
    flat = np.resize(pixels, (64, 64)).astype(np.uint8)
    (root / "images/00000001_000.png").write_bytes(encode(flat))
    reader = ImageReader(CONFIG, str(root), index_of(root), 1)
    levels = len(np.unique(flat))
    assert (reader.decode(0).status, reader.decode(0).detail) == (
        "low_contrast",
        f"98 % of its pixels lie within {levels} of 256 grey levels",
    )
    assert reader.decode(0).pixels is None
    assert reader.decode(1).status == "ok"


class GaugedReader(ImageReader):
    """Counts how many reads, and how many rows in all, are under way at once."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.lock, self.reading, self.peak, self.done = threading.Lock(), 0, 0, 0

    def decode(self, row):
        with self.lock:
            self.reading += 1
            self.peak = max(self.peak, self.reading)
        time.sleep(0.001)
        with self.lock:
            self.reading -= 1
            self.done += 1
        return Decoded(row, "ok", 0, "", np.zeros((64, 64), np.uint8))


@pytest.mark.parametrize("num_workers", [1, 4, 16])
def test_what_is_under_way_is_bounded_however_many_images_there_are(
    num_workers, make_root, index_of, tmp_path
):
    root = str(make_root(4))
    reader = GaugedReader(CONFIG, root, index_of(root), num_workers)
    decoded = reader.decode_many(range(2_000))  # drawn as they are needed
    for taken in range(1, 301):
        next(decoded)
        assert reader.done <= taken + MAX_IN_FLIGHT
    assert num_workers / 2 < reader.peak <= num_workers
    decoded.close()
    assert reader.done <= 300 + MAX_IN_FLIGHT


def test_memory_in_flight_does_not_grow_with_the_size_of_an_image(make_root, index_of):
    root = str(make_root(4))
    reader = GaugedReader(ImagesConfig(size=4096), root, index_of(root), 1)
    decoded = reader.decode_many(range(100))
    next(decoded)
    time.sleep(0.1)
    assert reader.done <= 1 + IN_FLIGHT_BYTES // 4096**2


def test_threads_are_one_a_core_and_eight_a_core_over_a_network(make_root, index_of, s3):
    root = make_root(4)
    index, cores = index_of(root), len(os.sched_getaffinity(0))
    assert ImageReader(CONFIG, str(root), index).num_workers == cores
    assert ImageReader(CONFIG, "s3://xrays", index).num_workers == 8 * cores
    assert ImageReader(CONFIG, "s3://xrays", index, 3).num_workers == 3
