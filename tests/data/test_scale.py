"""The real number of images, with little in each; and costs that grow with it, counted."""

import os
import sys

import numpy as np
import pandas as pd
import pytest

from benchmarks.data_plane import make_root
from cxrmodel.config import DataConfig, ImagesConfig, SplitConfig
from cxrmodel.data.files.root import Root
from cxrmodel.data.images.pixel_cache import PixelCache
from cxrmodel.data.images.reader import RECORD, Decoded, ImageReader
from cxrmodel.data.index import build_index
from cxrmodel.data.source import scan_source
from cxrmodel.data.splits import split_images
from cxrmodel.errors import DiskFullError

NUM_IMAGES = 112_120
TINY = ImagesConfig(size=64)


class NumberReader(ImageReader):
    """Gives each row its number as pixels, without a file, and keeps which rows were asked for."""

    def decode(self, row):
        self.__dict__.setdefault("decoded", []).append(row)
        pixels = np.full((self.config.size,) * 2, row % 251, np.uint8)
        return Decoded(row, "ok", row, "", pixels, 1024, 1024)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The listing of the whole data set."""
    names = [f"{number:08d}_000.png" for number in range(NUM_IMAGES)]
    listing = pd.DataFrame({"image": names, "uri": names, "bytes": 400_000, "version": "1"})
    directory = tmp_path_factory.mktemp("index")
    listing.to_parquet(directory / "listing.parquet")
    return directory


def room_taken(cache):
    return sum(path.stat().st_blocks * 512 for path in cache.directory.iterdir())


def test_a_memory_map_of_117_gb_takes_no_room_until_it_is_filled(index, tmp_path):
    config = ImagesConfig(size=1024)
    cache = PixelCache(config, index, NUM_IMAGES, tmp_path)
    reader = NumberReader(config, str(tmp_path), index, 1)
    try:
        cache.build(reader, np.array([0, NUM_IMAGES - 1]))
    except DiskFullError as error:
        pytest.skip(f"no file can be so long here: {error}")
    assert (cache.directory / "pixels.u8").stat().st_size == 117_566_341_120
    assert room_taken(cache) < 4 << 20
    np.testing.assert_array_equal(cache.pixels()[[0, -1], 1023, 1023], [0, 112_119 % 251])


def test_resuming_at_the_last_thousand_rows_reads_states_and_not_pixels(index, tmp_path):
    cache = PixelCache(TINY, index, NUM_IMAGES, tmp_path)
    reader = NumberReader(TINY, str(tmp_path), index, 1)
    cache.build(reader, np.arange(0))
    records = np.zeros(NUM_IMAGES, RECORD)
    records["status"][:-1000] = 1  # ok, and the pixels stay holes in the file
    records.tofile(cache.directory / "rows.bin")
    cache.build(reader, np.arange(NUM_IMAGES))
    assert reader.decoded == list(range(NUM_IMAGES - 1000, NUM_IMAGES))
    assert room_taken(cache) < 1000 * 64**2 + records.nbytes + (1 << 20)
    assert (cache.statuses() == "ok").all()
    np.testing.assert_array_equal(cache.pixels()[-1000::250, 5, 5], [row % 251 for row in
                                  range(NUM_IMAGES - 1000, NUM_IMAGES, 250)])  # fmt: skip


def num_calls(folder, num_images):
    """Return the calls, of Python and of C, that the stages before the pixels make."""
    root = make_root(folder / f"root{num_images}", num_images, None)
    made = folder / f"made{num_images}"
    made.mkdir()
    config, calls = DataConfig(root=str(root)), 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        source = scan_source(config, made)
        build_index(config, source, made)
        images = pd.read_parquet(made / "index.parquet", columns=["image"]).assign(status="ok")
        images.to_parquet(made / "images.parquet")
        split_images(SplitConfig(), made, made, made)
    finally:
        sys.setprofile(None)
    return calls


def test_calls_of_the_stages_before_pixels_grow_no_faster_than_the_images(tmp_path):
    num_calls(tmp_path, 500)  # what is imported and compiled once
    few, many = num_calls(tmp_path, 1_000), num_calls(tmp_path, 4_000)
    assert many < 4 * few


def test_each_folder_is_listed_once_and_only_the_csv_is_read(tmp_path, monkeypatch):
    root, listed, read = make_root(tmp_path / "root", 240, None), [], []
    list_folder, read_file = os.scandir, Root.read

    def read_counted(root, uri, *arguments, **options):
        read.append(uri)
        return read_file(root, uri, *arguments, **options)

    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or list_folder(path))
    monkeypatch.setattr(Root, "read", read_counted)
    config = DataConfig(root=str(root))
    build_index(config, scan_source(config, tmp_path), tmp_path)
    assert len(listed) == len(set(listed)) == 1 + 12 + 12
    assert read == ["Data_Entry_2017_v2020.csv"]


def test_a_drawn_share_costs_the_images_drawn(tmp_path):
    root = make_root(tmp_path / "root", 240, None)
    config = DataConfig(root=str(root), fraction=0.1)
    build_index(config, scan_source(config, tmp_path), tmp_path)
    reader = NumberReader(TINY, str(root), tmp_path, 1)
    assert len(reader.names) == 24
    cache = PixelCache(TINY, tmp_path, 24, tmp_path)
    cache.build(reader, np.arange(24))
    assert sorted(reader.decoded) == list(range(24))
    assert (cache.directory / "pixels.u8").stat().st_size == 24 * 64**2
