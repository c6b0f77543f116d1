import logging
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrmodel.config import DataConfig, ImagesConfig
from cxrmodel.data.images.decode import decode_image
from cxrmodel.data.images.pixel_cache import PixelCache
from cxrmodel.data.images.pixels import decode_images, open_pixels
from cxrmodel.data.index import build_index
from cxrmodel.data.source import scan_source
from cxrmodel.errors import DataError

CACHED, UNCACHED = ImagesConfig(size=64), ImagesConfig(size=64, cache=False)
BOTH = pytest.mark.parametrize("config", [CACHED, UNCACHED], ids=["mapped", "decoded"])


@pytest.fixture
def root(make_root):
    return make_root(8)


@pytest.fixture
def index(root, index_of):
    return index_of(root)


@pytest.fixture
def decode(root, index, tmp_path):
    def run(config=CACHED, name="images", where=None):
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        summary = decode_images(
            config, str(where or root), index, directory, scratch=tmp_path / "scratch"
        )
        return directory, summary

    return run


@pytest.fixture
def reopen(root, index, tmp_path):
    def run(images, config=CACHED, scratch="scratch", where=None):
        return open_pixels(
            config, str(where or root), index, images, scratch=tmp_path / scratch, num_workers=2
        )

    return run


def file_of(root, row):
    return root / f"images/{row // 2 + 1:08d}_{row % 2:03d}.png"


def pixels_of(root, row):
    return decode_image(file_of(root, row).read_bytes(), CACHED).pixels


@BOTH
def test_images_are_written_with_the_checksum_of_their_pixels(config, decode, root):
    directory, summary = decode(config)
    images = pd.read_parquet(directory / "images.parquet")
    assert list(images.columns) == ["image", "crc32", "width", "height", "status"]
    assert str(images["crc32"].dtype) == "uint32"
    expected = [zlib.crc32(pixels_of(root, row).tobytes()) for row in range(8)]
    assert images["crc32"].tolist() == expected
    assert images["status"].tolist() == ["ok"] * 8
    assert summary == {"num_images": 8, "num_excluded": 0, "excluded_by_reason": {}}


def test_with_and_without_the_cache_the_files_are_identical(decode, root, damage):
    file_of(root, 1).unlink()
    size = file_of(root, 2).stat().st_size
    damage(file_of(root, 2), file_of(root, 3).read_bytes()[: size - 9] + bytes(9))
    damage(file_of(root, 4), b"GIF89a" + bytes(file_of(root, 4).stat().st_size - 6))
    (cached, summary), (uncached, same) = decode(CACHED, "one"), decode(UNCACHED, "two")
    for name in ("images.parquet", "excluded.parquet"):
        assert (cached / name).read_bytes() == (uncached / name).read_bytes()
    assert summary == same
    assert summary["num_excluded"] == 3
    excluded = pd.read_parquet(cached / "excluded.parquet")
    assert excluded["image"].tolist() == [file_of(root, row).name for row in (1, 2, 4)]
    assert excluded["reason"].tolist()[0::2] == ["unreadable", "unsupported_image"]
    assert excluded["detail"][2].startswith("not a PNG, JPEG or DICOM file: it begins with")


@BOTH
def test_the_size_in_the_file_is_kept_and_zero_where_there_are_no_pixels(
    config, decode, root, png, index_of
):
    file_of(root, 2).write_bytes(png(2, 80))
    file_of(root, 5).write_bytes(b"\0" * 50)
    index_of(root)
    images = pd.read_parquet(decode(config)[0] / "images.parquet")
    assert images["width"].tolist() == [64, 64, 80, 64, 64, 0, 64, 64]
    assert images["height"].tolist() == images["width"].tolist()
    assert str(images["height"].dtype) == "uint32"


def test_too_large_images_are_in_the_ledger(root, index_of, tmp_path, png):
    file_of(root, 3).write_bytes(png(0, 128))
    index = index_of(root)
    config = ImagesConfig(size=64, max_megapixels=0.01)
    decode_images(config, str(root), index, tmp_path, scratch=tmp_path / "scratch")
    assert pd.read_parquet(tmp_path / "excluded.parquet").to_dict("records") == [
        {
            "image": "00000002_001.png",
            "reason": "too_large",
            "detail": "128 x 128 pixels, more than images.max_megapixels = 0.01",
        }
    ]


@BOTH
def test_reads_rows_in_any_order_and_number(config, decode, reopen, root):
    pixels = reopen(decode(config)[0], config)
    assert pixels.size == 64
    assert pixels.names[:2] == ["00000001_000.png", "00000001_001.png"]
    rows = pixels.rows_of(["00000003_001.png", "00000001_000.png", "00000003_001.png"])
    assert rows.tolist() == [5, 0, 5]
    batch = pixels.read(rows)
    assert batch.dtype == np.uint8
    np.testing.assert_array_equal(batch, [pixels_of(root, row) for row in (5, 0, 5)])
    assert pixels.read(np.array([], dtype=np.int64)).shape == (0, 64, 64)


@BOTH
def test_a_batch_is_a_copy_of_its_own(config, decode, reopen):
    pixels = reopen(decode(config)[0], config)
    rows = np.array([0])
    before = pixels.read(rows).copy()
    pixels.read(rows)[:] = 0
    np.testing.assert_array_equal(pixels.read(rows), before)


@BOTH
def test_unknown_and_excluded_images_are_named(config, decode, reopen, root):
    file_of(root, 1).unlink()
    pixels = reopen(decode(config)[0], config)
    with pytest.raises(DataError, match=r"x\.png is not an image of the index \(1 unknown\)"):
        pixels.rows_of(["00000001_000.png", "x.png"])
    excluded = r"00000001_001\.png has no pixels: it is unreadable"
    with pytest.raises(DataError, match=excluded):
        pixels.rows_of(["00000001_001.png"])
    with pytest.raises(DataError, match=excluded):
        pixels.read(np.array([0, 1]))


def test_lost_scratch_is_filled_again_without_complaint(decode, reopen, root, caplog):
    caplog.set_level(logging.INFO)
    file_of(root, 1).unlink()
    images = decode()[0]
    caplog.clear()
    pixels = reopen(images, scratch="another")
    np.testing.assert_array_equal(pixels.read(np.array([2]))[0], pixels_of(root, 2))
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "Decoding 7 of 7 images" in caplog.text


def test_a_damaged_row_is_decoded_again_and_mended(decode, reopen, root, index, tmp_path, caplog):
    images = decode()[0]
    cache = PixelCache(CACHED, index, 8, tmp_path / "scratch")
    with (cache.directory / "pixels.u8").open("r+b") as stream:
        stream.seek(3 * 64 * 64)
        stream.write(bytes(64))
    rows = np.array([3, 4])
    np.testing.assert_array_equal(reopen(images).read(rows)[0], pixels_of(root, 3))
    assert "Pixels of 00000002_001.png are damaged in scratch" in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(reopen(images).read(rows)[0], pixels_of(root, 3))
    assert not caplog.text


def test_a_cache_whose_records_differ_from_the_artifact_is_decoded_again(
    decode, reopen, root, index, tmp_path
):
    images = decode()[0]
    cache = PixelCache(CACHED, index, 8, tmp_path / "scratch")
    records = np.fromfile(cache.directory / "rows.bin", dtype=[("s", "u1"), ("rest", "V196")])
    records["rest"][5] = bytes(196)
    records["s"][6] = 200
    records.tofile(cache.directory / "rows.bin")
    rows = np.array([5, 6])
    np.testing.assert_array_equal(reopen(images).read(rows), [pixels_of(root, r) for r in rows])
    assert (cache.statuses() == "ok").all()


def change(root, row, png):
    """Replace an image by another of the same size in bytes and pixels."""
    target = file_of(root, row)
    number = next(n for n in range(100, 999) if len(png(n)) == target.stat().st_size)
    target.write_bytes(png(number))


@BOTH
def test_an_image_that_changed_meanwhile_is_named(config, decode, reopen, root, png):
    images = decode(config)[0]
    change(root, 2, png)
    message = r"00000002_000\.png no longer decodes .*has changed.*Run again"
    with pytest.raises(DataError, match=message):
        reopen(images, config, scratch="another").read(np.array([2]))


def test_folders_of_different_runs_are_refused(decode, reopen):
    images = decode()[0]
    checksums = pd.read_parquet(images / "images.parquet")
    checksums[::-1].to_parquet(images / "images.parquet")
    with pytest.raises(DataError, match=r"images holds checksums of other images than .*index"):
        reopen(images)


def test_no_usable_image_gives_counts_and_the_first(decode, root, damage):
    for row in range(8):
        path = file_of(root, row)
        damage(path, bytes(path.stat().st_size))
    message = (
        r"None of the 8 images of .* can be decoded: unsupported_image 8\. "
        r"The first is 00000001_000\.png: not a PNG.*\. Convert these files to PNG"
    )
    with pytest.raises(DataError, match=message):
        decode()


@BOTH
def test_works_on_a_bucket(config, s3, make_root, index_of, tmp_path):
    local = make_root(4)
    file_of(local, 3).write_bytes(file_of(local, 2).read_bytes()[:-30])
    for path in local.rglob("*.*"):
        s3.put_file(str(path), f"xrays/{path.relative_to(local)}")
    index = index_of("s3://xrays")
    s3.rm("xrays/images/00000001_001.png")
    summary = decode_images(config, "s3://xrays", index, tmp_path, scratch=tmp_path / "scratch")
    assert summary["excluded_by_reason"] == {"damaged_image": 1, "unreadable": 1}
    pixels = open_pixels(config, "s3://xrays", index, tmp_path, scratch=tmp_path / "again")
    expected = [pixels_of(local, row) for row in (2, 0)]
    np.testing.assert_array_equal(pixels.read(np.array([2, 0])), expected)


@pytest.mark.parametrize(
    ("fit", "factors"),
    [("crop", "4.0 times (half of them 2.0"), ("pad", "2.0 times (half of them")],
)
def test_small_images_are_enlarged_with_one_warning(fit, factors, tmp_path, make_root, caplog):
    root = make_root(4)
    for number, (width, height) in enumerate([(64, 128), (128, 128), (128, 200), (256, 300)]):
        grey = np.random.default_rng(number).integers(0, 256, (height, width), dtype=np.uint8)
        Image.fromarray(grey).save(sorted((root / "images").iterdir())[number])
    config = DataConfig(root=str(root))
    build_index(config, scan_source(config, tmp_path / "s"), tmp_path)
    settings = ImagesConfig(size=256, fit=fit)
    decode_images(settings, str(root), tmp_path, tmp_path, scratch=tmp_path / "scratch")
    (message,) = [r.message for r in caplog.records if "enlarged" in r.message]
    assert "3 of 4 images are smaller than images.size = 256" in message
    assert factors in message
    assert "images.size to about 128 px" in message
