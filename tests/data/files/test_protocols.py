"""Data sets behind other protocols than folders and S3, read through fsspec alone."""

import importlib.util
import zipfile

import numpy as np
import pandas as pd
import pytest
from fsspec.config import apply_config, conf, set_conf_env
from PIL import Image

from cxrmodel.config import DataConfig, ImagesConfig
from cxrmodel.data.images.pixels import decode_images, open_pixels
from cxrmodel.data.source import scan_source
from cxrmodel.errors import DataError
from tests.servers.web import WebServer

ENTRIES = "Data_Entry_2017_v2020.csv"
COLUMNS = ["image", "uri", "patient_id", "Mass"]


def images_of(root, index_of, tmp_path, name):
    """Return the index of a root and its decoded pixels."""
    index, config = index_of(root, name), ImagesConfig(size=64)
    images = tmp_path / f"images-{name}"
    images.mkdir()
    scratch = tmp_path / f"scratch-{name}"
    decode_images(config, str(root), index, images, scratch=scratch, num_workers=4)
    pixels = open_pixels(config, str(root), index, images, scratch=scratch)
    table = pd.read_parquet(index / "index.parquet")
    return table, pixels.read(pixels.rows_of(table["image"].tolist()))


def assert_same_images(url, folder, index_of, tmp_path):
    found, pixels = images_of(url, index_of, tmp_path, "there")
    expected, expected_pixels = images_of(folder, index_of, tmp_path, "here")
    pd.testing.assert_frame_equal(found[COLUMNS], expected[COLUMNS])
    np.testing.assert_array_equal(pixels, expected_pixels)
    first = np.asarray(Image.open(folder / found["uri"][0]))
    np.testing.assert_array_equal(pixels[0], first)


@pytest.fixture
def archive(make_root, tmp_path):
    """Return a folder of eight images and a zip archive of it."""
    root, path = make_root(8), tmp_path / "xrays.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*.*")):
            archive.write(file, file.relative_to(root))
    return root, path


def test_a_zip_archive_is_a_root(archive, index_of, tmp_path):
    root, path = archive
    assert_same_images(f"zip::{path}", root, index_of, tmp_path)


def test_a_folder_in_a_zip_archive_is_a_root(archive, index_of, tmp_path):
    root, path = archive
    csv = str(root / ENTRIES)
    index = pd.read_parquet(index_of(f"zip://images::{path}", csv=csv) / "index.parquet")
    assert index["uri"].tolist() == [file.name for file in sorted((root / "images").iterdir())]


def test_a_member_of_equal_size_that_changed_is_another_source(archive, tmp_path):
    _, path = archive
    config = DataConfig(root=f"zip::{path}")
    before = scan_source(config, tmp_path / "scratch").fingerprint
    assert scan_source(config, tmp_path / "scratch").fingerprint == before
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for info in old.infolist():
            content = bytearray(old.read(info))
            if info.filename.endswith("000.png"):
                content[50] ^= 1
            new.writestr(info, bytes(content))
    other.replace(path)
    assert scan_source(config, tmp_path / "scratch").fingerprint != before


@pytest.fixture
def serve():
    """Return a function from a folder to the URL of a web server of it."""
    servers = []

    def start(folder, ranges=True):
        servers.append(WebServer(folder))
        servers[-1].ranges = ranges
        return servers[-1].url

    yield start
    for server in servers:
        server.stop()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_web_server_that_lists_its_folders_is_a_root(
    ranges, make_root, serve, index_of, tmp_path
):
    root = make_root(8)
    assert_same_images(serve(root, ranges=ranges), root, index_of, tmp_path)


def test_a_folder_of_a_web_server_is_a_root(make_root, serve, tmp_path):
    root = make_root(2)
    config = DataConfig(root=f"{serve(tmp_path)}/{root.name}/")
    listing = pd.read_parquet(scan_source(config, tmp_path).directory / "listing.parquet")
    files = sorted((root / "images").iterdir())
    assert listing["uri"].tolist() == [f"images/{file.name}" for file in files]
    assert listing["bytes"].tolist() == [file.stat().st_size for file in files]
    assert (listing["version"] != "").all()


def test_an_archive_behind_a_web_server_is_a_root(archive, serve, index_of, tmp_path):
    root, path = archive
    assert_same_images(f"zip::{serve(path.parent)}/{path.name}", root, index_of, tmp_path)


def test_an_archive_of_which_no_part_can_be_asked_for_says_so(archive, serve, tmp_path):
    url = f"zip::{serve(tmp_path, ranges=False)}/xrays.zip"
    with pytest.raises(DataError, match=r"Cannot open zip::http.*support range requests"):
        scan_source(DataConfig(root=url), tmp_path)


def test_the_table_may_lie_behind_another_protocol(archive, serve, index_of):
    root, path = archive
    for csv in (f"zip://{ENTRIES}::{path}", f"{serve(root)}/{ENTRIES}"):
        index = pd.read_parquet(index_of(root, csv=csv) / "index.parquet")
        assert len(index) == 8


def test_a_table_that_is_refused_or_needs_an_extra_says_so(archive, serve, tmp_path):
    root, _ = archive
    url = f"{serve(root)}/nowhere.csv"
    with pytest.raises(DataError, match=r"Cannot read http://.*/nowhere\.csv: it does not exist"):
        scan_source(DataConfig(root=str(root), csv=url), tmp_path)
    if importlib.util.find_spec("gcsfs") is None:
        with pytest.raises(DataError, match=r"Cannot read gs://x/a\.csv: .*'cxrmodel\[gcs\]'\."):
            scan_source(DataConfig(root=str(root), csv="gs://x/a.csv"), tmp_path)


def test_requester_pays_is_set_in_the_environment(monkeypatch):
    class GoogleCloud:
        protocol = ("gs", "gcs")

    before = dict(conf)
    try:
        set_conf_env(conf, {"FSSPEC_GS_REQUESTER_PAYS": "my-project"})
        assert apply_config(GoogleCloud, {}) == {"requester_pays": "my-project"}
    finally:
        conf.clear()
        conf.update(before)


@pytest.mark.parametrize("protocol", ["https", "gs", "zip::https"])
def test_credentials_in_a_url_are_refused(protocol):
    with pytest.raises(ValueError, match="must not carry credentials"):
        DataConfig(root=f"{protocol}://user:secret@host/xrays.zip")
