import os
import shutil
from collections import namedtuple

import numpy as np
import pytest

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.pixel_cache import PixelCache
from cxrmodel.data.images.reader import ImageReader
from cxrmodel.errors import ScratchSpaceError

CONFIG = ImagesConfig(size=64)
ROWS = np.arange(8)
MESSAGE = (
    r"need 32,768 bytes in .*/images/.*, and 20,000 are free.*store\.scratch.*images\.size"
    r".*data\.fraction.*images\.cache to false"
)


@pytest.fixture
def index(make_root, index_of):
    return index_of(make_root(8))


@pytest.fixture
def reader(index, tmp_path):
    return ImageReader(CONFIG, str(tmp_path / "data"), index, 1)


@pytest.fixture
def cache(index, tmp_path):
    return PixelCache(CONFIG, index, 8, tmp_path / "scratch")


@pytest.fixture
def small_disk(monkeypatch):
    usage = namedtuple("usage", "total used free")(50_000, 30_000, 20_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_too_little_is_refused_before_anything_is_decoded(cache, reader, small_disk):
    with pytest.raises(ScratchSpaceError, match=MESSAGE):
        cache.build(reader, ROWS)
    assert (cache.statuses() == "").all()


def test_only_what_is_still_to_come_counts(cache, reader, small_disk):
    cache.build(reader, ROWS[:4])  # 16,384 bytes
    cache.build(reader, ROWS)
    assert cache.statuses().tolist() == ["ok"] * 8


def test_folders_of_other_listings_are_named_with_their_size(
    cache, reader, index, tmp_path, small_disk
):
    other = PixelCache(ImagesConfig(size=128), index, 8, tmp_path / "scratch")
    with pytest.raises(ScratchSpaceError) as alone:
        cache.build(reader, ROWS)
    assert "Older folders" not in str(alone.value)
    other.directory.mkdir()
    (other.directory / "pixels.u8").write_bytes(bytes(64 << 20))
    (other.directory / "lock").touch()
    os.utime(other.directory / "lock", (86_400, 86_400))
    named = rf"Older folders.*: {other.directory}, 0\.06 GiB, last opened 1970-01-02\.$"
    with pytest.raises(ScratchSpaceError, match=named):
        cache.build(reader, ROWS)
