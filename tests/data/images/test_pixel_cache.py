import logging
import os
import shutil
import threading
import time

import numpy as np
import pytest

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.pixel_cache import RECORD, PixelCache, cache_key
from cxrmodel.data.images.reader import Decoded, ImageReader
from cxrmodel.errors import ImageError

CONFIG = ImagesConfig(size=64)


class CountingReader(ImageReader):
    """Counts the rows that are decoded, and can fail at one of them."""

    fail_at = -1

    def decode(self, row):
        self.__dict__.setdefault("decoded", []).append(row)
        if row == self.fail_at:
            raise ConnectionResetError("the store went away")
        return super().decode(row)


@pytest.fixture
def index(make_root, index_of):
    return index_of(make_root(8))


@pytest.fixture
def reader(index, tmp_path):
    return CountingReader(CONFIG, str(tmp_path / "data"), index, 1)


@pytest.fixture
def cache(index, tmp_path):
    return PixelCache(CONFIG, index, 8, tmp_path / "scratch")


ROWS = np.arange(8)


def test_holds_what_the_decoder_gives(cache, reader):
    seen = []
    cache.build(reader, ROWS, report=lambda progress: seen.append((progress.done, progress.total)))
    expected = [reader.decode(row) for row in range(8)]
    np.testing.assert_array_equal(cache.pixels(), [one.pixels for one in expected])
    assert cache.checksums().tolist() == [one.crc32 for one in expected]
    assert cache.statuses().tolist() == ["ok"] * 8
    assert seen[-1] == (8, 8)


def test_a_finished_row_is_never_decoded_again(cache, reader):
    cache.build(reader, ROWS[2:5])
    assert cache.statuses().tolist() == [""] * 2 + ["ok"] * 3 + [""] * 3
    cache.build(reader, ROWS)
    cache.build(reader, ROWS)
    assert sorted(reader.decoded) == list(range(8))


def test_rows_with_another_checksum_than_wanted_are_decoded_again(cache, reader):
    cache.build(reader, ROWS)
    wanted = cache.checksums()
    wanted[3] ^= 1
    reader.decoded.clear()
    cache.build(reader, ROWS, wanted)
    assert reader.decoded == [3]


def test_an_unreachable_store_raises_and_keeps_what_is_done(cache, reader):
    reader.fail_at = 5
    with pytest.raises(ConnectionResetError, match="the store went away"):
        cache.build(reader, ROWS)
    assert cache.statuses().tolist() == ["ok"] * 5 + [""] * 3
    reader.fail_at = -1
    reader.decoded.clear()
    cache.build(reader, ROWS)
    assert sorted(reader.decoded) == [5, 6, 7]


def test_images_that_fail_have_status_and_detail_also_after_a_resume(
    cache, reader, tmp_path, damage
):
    images = tmp_path / "data/images"
    (images / "00000001_001.png").unlink()
    whole = (images / "00000002_000.png").read_bytes()
    damage(images / "00000002_000.png", whole[:-20] + bytes(20))
    damage(images / "00000002_001.png", b"short")
    replaced = images / "00000003_000.png"
    os.utime(replaced, ns=(1, replaced.stat().st_mtime_ns + 1))
    cache.build(reader, ROWS)
    statuses = ["ok", "unreadable", "damaged_image", "unreadable", "replaced"]
    assert cache.statuses().tolist()[:5] == statuses
    details = [detail.decode() for detail in cache.records()["detail"].tolist()]
    assert details[1] == "it was listed, and is no longer there"
    assert details[2]
    assert details[3].startswith("5 bytes, and 4,")
    assert details[4] == f"it was version {reader._files[4].version} when it was listed"
    assert cache.checksums()[1:5].tolist() == [0, 0, 0, 0]
    assert not cache.pixels()[1:5].any()


def test_rows_that_another_try_may_find_are_tried_again_and_a_damaged_one_is_not(
    cache, reader, tmp_path, damage
):
    gone, bad, unknown, replaced = sorted((tmp_path / "data/images").iterdir())[1:5]
    gone.rename(tmp_path / "away.png")
    damage(bad, bad.read_bytes()[:-20] + bytes(20))
    whole, modified = unknown.read_bytes(), replaced.stat().st_mtime_ns
    damage(unknown, bytes(len(whole)))
    os.utime(replaced, ns=(1, modified + 1))
    cache.build(reader, ROWS)
    assert cache.statuses().tolist()[1:5] == [
        "unreadable",
        "damaged_image",
        "unsupported_image",
        "replaced",
    ]
    (tmp_path / "away.png").rename(gone)
    damage(unknown, whole)
    os.utime(replaced, ns=(1, modified))
    reader.decoded.clear()
    cache.build(reader, ROWS)
    assert reader.decoded == [1, 3, 4]
    assert cache.statuses().tolist()[1:5] == ["ok", "damaged_image", "ok", "ok"]


def test_a_root_that_is_gone_as_a_whole_is_no_ledger_entry(cache, reader, tmp_path):
    (tmp_path / "data").rename(tmp_path / "unmounted")
    with pytest.raises(OSError, match=r"/data is gone or out of reach"):
        cache.build(reader, ROWS)
    assert cache.statuses().tolist() == [""] * 8


@pytest.mark.parametrize("name", ["pixels.u8", "rows.bin"])
def test_a_file_cut_short_means_a_new_start(name, cache, reader):
    cache.build(reader, ROWS)
    os.truncate(cache.directory / name, 100)
    assert cache.statuses().tolist() == [""] * 8
    reader.decoded.clear()
    cache.build(reader, ROWS)
    assert sorted(reader.decoded) == list(range(8))


def test_the_key_covers_listing_and_decoding_but_not_where_pixels_are_kept(index, tmp_path):
    key = cache_key(CONFIG, index)
    assert key == cache_key(ImagesConfig(size=64, cache=False), index)
    assert key != cache_key(ImagesConfig(size=128), index)
    assert key != cache_key(ImagesConfig(size=64, fit="pad"), index)
    other = shutil.copytree(index, tmp_path / "other")
    (other / "listing.parquet").write_bytes((index / "index.parquet").read_bytes())
    assert key != cache_key(CONFIG, other)


def test_opening_the_map_marks_it_as_used(cache, reader):
    cache.build(reader, ROWS)
    os.utime(cache.directory / "lock", (86_400, 86_400))
    cache.build(reader, ROWS)
    assert time.time() - (cache.directory / "lock").stat().st_mtime < 60


def test_the_file_takes_no_room_before_it_is_filled(cache, reader):
    cache.build(reader, ROWS[:1])
    status = (cache.directory / "pixels.u8").stat()
    assert status.st_size == 8 * 64 * 64
    assert status.st_blocks * 512 < status.st_size


def test_a_second_builder_waits_and_finds_it_done(cache, index, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    other = CountingReader(CONFIG, str(tmp_path / "data"), index, 1)
    entered, go_on = threading.Event(), threading.Event()

    class Paused(CountingReader):
        def decode(self, row):
            entered.set()
            assert go_on.wait(10)
            return super().decode(row)

    paused = Paused(CONFIG, str(tmp_path / "data"), index, 1)
    builders = [
        threading.Thread(target=cache.build, args=(paused, ROWS)),
        threading.Thread(target=cache.build, args=(other, ROWS)),
    ]
    builders[0].start()
    assert entered.wait(10)
    builders[1].start()
    deadline = time.monotonic() + 10
    while "Waiting for another process" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.01)
    go_on.set()
    for builder in builders:
        builder.join(10)
    assert "decoded" not in other.__dict__
    assert cache.statuses().tolist() == ["ok"] * 8


MISFITS = (
    np.ones((64, 64, 3), np.uint8),
    np.ones((64, 64), np.uint16),
    np.ones((65, 64), np.uint8),
    np.ones(64 * 64, np.uint8),
    np.ones((64, 63), np.uint8),
)


@pytest.mark.parametrize("misfit", MISFITS, ids=lambda pixels: f"{pixels.dtype}-{pixels.shape}")
def test_pixels_that_do_not_fit_are_in_the_ledger_and_leave_their_neighbours_alone(
    misfit, cache, index, tmp_path
):
    class OddReader(ImageReader):
        def decode(self, row):
            return Decoded(row, "ok", 1, "", misfit) if row == 3 else super().decode(row)

    reader = OddReader(CONFIG, str(tmp_path / "data"), index, 1)
    cache.build(reader, np.array([4, 5, 6, 7, 0, 1, 2, 3]))  # the odd one last
    assert cache.statuses().tolist() == ["ok"] * 3 + ["damaged_image"] + ["ok"] * 4
    assert cache.records()["detail"][3].startswith(f"it decodes to {misfit.dtype} of".encode())
    stored = cache.pixels()
    assert not stored[3].any()
    for row in (0, 1, 2, 4, 5, 6, 7):
        np.testing.assert_array_equal(stored[row], reader.decode(row).pixels)
    with pytest.raises(ImageError, match="it decodes to"):
        cache.repair(2, misfit)
    np.testing.assert_array_equal(stored[4], reader.decode(4).pixels)


def test_a_record_is_as_long_as_the_format_says():
    assert RECORD.itemsize == 205  # a change needs a new FORMAT_VERSION
