"""From a path to the pixels that the images stage makes of it, or to a reason."""

import os
import shutil
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.decode import decode_image
from cxrmodel.inference.image_files import BundlePreprocessing, expand, read_image, read_images
from tests.data.images.image_bytes import chunk, dicom, encode, header, noise, png, shades
from tests.servers.web import WebServer

SQUARE = BundlePreprocessing(64, "crop", 1)
RIGHT = encode(noise())
CUT_DICOM = dicom(noise())[:-100]

HOSTILE = {
    "empty": b"",
    "one byte": b"x",
    "only a signature": RIGHT[:8],
    "only a header": RIGHT[:40],
    "cut in the middle": RIGHT[: len(RIGHT) // 2],
    "cut before its end": RIGHT[:-4],
    "a flipped byte": bytes([*RIGHT[:200], RIGHT[200] ^ 1, *RIGHT[201:]]),
    "no pixels": png(header(64, 64)),
    "pixels that end early": png(header(64, 64), chunk(b"IDAT", zlib.compress(b"\0" * 650))),
    "broken stream": png(header(64, 64), chunk(b"IDAT", b"garbage")),
    "header too short": png(chunk(b"IHDR", b"\0" * 5)),
    "side of zero": png(header(0, 64)),
    "huge in the header": png(header(60_000, 60_000)),
    "a text bomb": png(header(64, 64), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 24)))),
    "an error page": b"<html><title>403 Forbidden</title>",
    "a GIF": encode(noise(), "GIF"),
    "a BMP": encode(noise(), "BMP"),
    "a TIFF": encode(noise(), "TIFF"),
    "a WebP": encode(noise(), "WEBP"),
    "half a JPEG": encode(noise(), "JPEG")[:600],
    "a JPEG of many scans": encode(noise(), "JPEG") + b"\xff\xda" * 80,
    "a zip archive": b"PK\x03\x04" + bytes(100),
    "black": encode(np.zeros((64, 64), np.uint8)),
    "one grey": encode(np.full((64, 64), 90, np.uint8)),
    "half a DICOM file": CUT_DICOM,
}


def test_hostile_files_cost_a_row_each_and_nothing_else(model, tmp_path):
    paths = []
    for number, content in enumerate(HOSTILE.values()):
        path = tmp_path / f"{number:02d}.png"
        path.write_bytes(content)
        paths.append(path)
    table = model.predict([*paths, tmp_path, tmp_path / "gone.png"])
    assert len(table) == 2 * len(HOSTILE) + 1  # a folder among the files is read as one
    told = table.iloc[: len(HOSTILE)].set_index(pd.Index(HOSTILE))
    assert not (told["status"] == "ok").any(), told[["status", "detail"]]
    assert told["detail"].str.len().gt(0).all()
    assert table["p_Mass"].isna().all()


@pytest.mark.parametrize("fit", ["crop", "pad", "resize"])
@pytest.mark.parametrize("kind", ["png", "jpeg", "dicom"])
def test_pixels_are_those_of_the_images_stage(tmp_path, fit, kind):
    pixels = (shades(90, 120) * 255).astype(np.uint8)
    content = dicom(pixels) if kind == "dicom" else encode(pixels, kind.upper())
    path = tmp_path / f"image.{kind}"
    path.write_bytes(content)
    expected = decode_image(content, ImagesConfig(size=64, fit=fit)).pixels
    read = read_image(str(path), BundlePreprocessing(64, fit, 64.0))
    assert read.status == "ok"
    np.testing.assert_array_equal(read.pixels, expected)


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        ({"ViewPosition": "LL"}, "lateral_view"),
        ({"SeriesDescription": "Thorax lateral"}, "lateral_view"),
        ({"PixelSpacing": [0.143, 0.2]}, "squeezed"),
        ({"PixelAspectRatio": [4, 3]}, "squeezed"),
        ({"PixelSpacing": [0.143, 0.1431]}, "ok"),
        ({"PixelSpacing": [0, 0.2]}, "ok"),
        ({"ViewPosition": "PA"}, "ok"),
        ({}, "ok"),
    ],
)
def test_tags_tell_a_lateral_view_and_pixels_that_are_not_square(tmp_path, tags, status):
    path = tmp_path / "image.dcm"
    path.write_bytes(dicom((shades() * 255).astype(np.uint8), **tags))
    read = read_image(str(path), SQUARE)
    assert (read.status, read.pixels is None) == (status, status != "ok")
    assert read_image(str(path), SQUARE, gate=False).status == "ok"


def test_images_come_in_order_and_are_read_a_bounded_number_ahead(tmp_path):
    asked: list[int] = []

    def names():
        for number in range(200):
            asked.append(number)
            path = tmp_path / f"{number}.png"
            Image.fromarray(noise(seed=number)).save(path)
            yield str(path)

    found = read_images(names(), SQUARE, num_workers=2)
    first = next(found)
    assert first.image.endswith("/0.png")
    assert len(asked) <= 9
    assert [read.image for read in found] == [str(tmp_path / f"{n}.png") for n in range(1, 200)]


def test_a_device_is_never_read():
    assert read_image("/dev/zero", SQUARE).status == "unreadable"
    assert read_image("file:///dev/zero", SQUARE).status == "unreadable"


def test_an_image_of_a_web_server_is_read(tmp_path):
    (tmp_path / "a b.png").write_bytes(RIGHT)
    server = WebServer(tmp_path)
    try:
        read = read_image(f"{server.url}/a b.png", SQUARE)
        gone = read_image(f"{server.url}/gone.png", SQUARE)
    finally:
        server.stop()
    assert (read.status, gone.status) == ("ok", "unreadable")


@pytest.mark.parametrize(
    "url",
    [
        "gopher://host/folder",
        "gopher://host/a.png",
        "reference://a.png",
        "dir://a.png",
        "zip://a.png::bad.zip",
        "zip://::bad.zip",
        "zip::",
        "http://127.0.0.1:1/",
        "http://[::1/a.png",
        "data:image/png;base64,xx",
        "tar://a.png::/gone.tar",
        "",
        "a\0b.png",
        "~nobody-of-this-name/a.png",
        "x" * 5000,
    ],
)
def test_what_cannot_be_opened_costs_its_row(model, tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.zip").write_bytes(b"x")
    (tmp_path / "right.png").write_bytes(RIGHT)
    table = model.predict([url, "right.png"], gate=False)
    assert table["status"].tolist() == ["unreadable", "ok"]
    assert table["detail"].iloc[0]


def test_a_folder_without_images_costs_its_row(model, tmp_path):
    table = model.predict(tmp_path)
    assert table["status"].tolist() == ["unreadable"]
    assert "no image was found in it" in table["detail"].iloc[0]


@pytest.mark.parametrize(
    "name", [b"a::b.png", b"zip:x.png", b"a\nb.png", b"a\rb.png", b"*.png", b"\xff.png", b" .png"]
)
def test_any_name_of_a_file_is_read_and_written(model, tmp_path, name):
    folder, out = tmp_path / "images", tmp_path / "scores"
    folder.mkdir()
    path = folder / os.fsdecode(name)
    path.write_bytes(RIGHT)
    for images in (folder, path):
        table = model.predict(images, gate=False)
        assert table["status"].tolist() == ["ok"]
        table.to_parquet(out)
        table.to_csv(out, index=False)
        pd.testing.assert_series_equal(pd.read_csv(out)["image"], table["image"])


def test_images_of_an_archive_and_of_linked_folders_are_found(model, tmp_path):
    folder, outside = tmp_path / "images", tmp_path / "outside"
    for place in (folder, outside):
        place.mkdir()
    (outside / "a.png").write_bytes(RIGHT)
    (folder / "link").symlink_to(outside)
    (folder / "again").symlink_to(folder)
    assert list(expand([folder])) == [str(folder / "link" / "a.png")]
    archive = shutil.make_archive(str(tmp_path / "images"), "zip", outside)
    table = model.predict(f"zip://::{archive}", gate=False)
    assert table[["image", "status"]].to_numpy().tolist() == [[f"zip://a.png::{archive}", "ok"]]


def test_the_home_folder_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.png").write_bytes(RIGHT)
    assert read_image("~/a.png", SQUARE).status == "ok"
