import http.server
import os
import re
import threading
import time

import pandas as pd
import pytest
from s3fs import S3FileSystem

from cxrmodel.config import DataConfig
from cxrmodel.data.source import scan_source
from cxrmodel.errors import DataError


def scan(root, tmp_path, **settings):
    return scan_source(DataConfig(root=str(root), **settings), tmp_path / "scratch")


def listed(source):
    return pd.read_parquet(source.directory / "listing.parquet")


def touch(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("folder", ["images", "images_001/images", "png", "."])
def test_lists_images_of_every_layout_sorted_and_nothing_else(folder, tmp_path, write_csv):
    root = tmp_path / "data"
    write_csv(root / "Data_Entry_2017.csv", [])
    for name in ("b.png", "a.PNG", "c.jpg", "d.JPEG", "e.dcm", "f.gif", "g.png.bak", "README.txt"):
        touch(root / folder / name, b"12345")
    listing = listed(scan(root, tmp_path))
    prefix = "" if folder == "." else f"{folder}/"
    names = ("a.PNG", "b.png", "c.jpg", "d.JPEG", "e.dcm")
    assert listing["uri"].tolist() == [f"{prefix}{name}" for name in names]
    assert listing["bytes"].tolist() == [5] * 5
    assert listing["version"][1] == str((root / folder / "b.png").stat().st_mtime_ns)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["masks/a.png", "x1/xrays/a.png", "x2/xrays/b.png"]),
        ("masks", ["masks/a.png"]),
        ("./x1/", ["x1/xrays/a.png"]),
        ("x*", ["x1/xrays/a.png", "x2/xrays/b.png"]),
        ("x*/xrays", ["x1/xrays/a.png", "x2/xrays/b.png"]),
        ("**/xrays/*.png", ["x1/xrays/a.png", "x2/xrays/b.png"]),
        ("**/b.png", ["x2/xrays/b.png"]),
    ],
)
def test_data_images_names_a_folder_or_a_glob(pattern, expected, tmp_path, write_csv):
    root = tmp_path / "data"
    write_csv(root / "Data_Entry_2017.csv", [])
    for name in ("masks/a.png", "x1/xrays/a.png", "x2/xrays/b.png"):
        touch(root / name)
    assert listed(scan(root, tmp_path, images=pattern))["uri"].tolist() == expected


@pytest.mark.parametrize("pattern", ["mask", "a.png", "data/masks", "x**", "[z-a]"])
def test_data_images_of_nothing_shows_the_folders(pattern, tmp_path, write_csv):
    root = tmp_path / "data"
    write_csv(root / "Data_Entry_2017.csv", [])
    for name in ("masks/a.png", "masks/b.png", "c.png"):
        touch(root / name)
    with pytest.raises(DataError, match=rf"data\.images = {re.escape(pattern)} ") as caught:
        scan(root, tmp_path, images=pattern)
    if "names none of" in str(caught.value):
        assert "Folders with images: masks (2), the root itself (1)." in str(caught.value)


def test_fingerprint_covers_csv_lists_and_listing_and_nothing_else(make_root, tmp_path):
    root = make_root(2)
    first = scan(root, tmp_path)
    touch(root / "README.txt")
    assert scan(root, tmp_path) == first
    changes = [
        lambda: touch(root / "test_list.txt", b"a.png"),
        lambda: os.utime(root / "images/00000001_000.png", ns=(1, 1)),
        lambda: touch(root / "images/new.png"),
        lambda: (root / "Data_Entry_2017_v2020.csv").open("a").write("\n"),
    ]
    seen = {first.fingerprint}
    for change in changes:
        change()
        seen.add(scan(root, tmp_path).fingerprint)
    assert len(seen) == 5


def test_snapshot_holds_the_csv_and_the_official_lists(make_root, tmp_path):
    root = make_root(2)
    touch(root / "lists/train_val_list.txt", b"00000001_000.png\n")
    source = scan(root, tmp_path)
    content = (source.directory / "train_val_list.txt").read_bytes()
    assert content == b"00000001_000.png\n"
    assert (source.directory / "entries.csv").read_bytes() == (
        root / "Data_Entry_2017_v2020.csv"
    ).read_bytes()
    assert not (source.directory / "test_list.txt").exists()
    assert [p.name for p in source.directory.parent.iterdir()] == [source.directory.name]


def test_snapshot_that_lost_a_file_is_made_whole_again(make_root, tmp_path):
    root = make_root(2)
    source = scan(root, tmp_path)
    (source.directory / "listing.parquet").unlink()
    assert len(listed(scan(root, tmp_path))) == 2


def test_csv_may_lie_elsewhere(make_root, tmp_path, write_csv):
    root = make_root(2)
    (root / "Data_Entry_2017_v2020.csv").unlink()
    elsewhere = write_csv(tmp_path / "meta.csv", [("a.png", "Mass", "1")])
    source = scan(root, tmp_path, csv=str(elsewhere))
    assert (source.directory / "entries.csv").read_bytes() == elsewhere.read_bytes()


def test_a_single_csv_with_the_columns_is_found_under_any_name(make_root, tmp_path):
    root = make_root(2)
    csv = (root / "Data_Entry_2017_v2020.csv").rename(root / "meta.csv")
    touch(root / "BBox_List_2017.csv", b"Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
    touch(root / "empty.csv", b"")
    assert (scan(root, tmp_path).directory / "entries.csv").read_bytes() == csv.read_bytes()


def test_links_are_followed_and_no_folder_twice(make_root, tmp_path):
    root = make_root(2)
    touch(tmp_path / "outside/other.png")
    (root / "images/link.png").symlink_to(tmp_path / "outside/other.png")
    (root / "more").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root)
    (root / "images/alias.png").symlink_to(root / "images/00000001_000.png")
    (root / "images/broken.png").symlink_to(root / "nowhere.png")
    assert listed(scan(root, tmp_path))["uri"].tolist() == [
        "images/00000001_000.png",
        "images/00000001_001.png",
        "images/alias.png",
        "images/link.png",
        "more/other.png",
    ]


def test_file_names_that_are_not_utf8_do_not_stop_the_scan(make_root, tmp_path):
    root = make_root(2)
    touch(root / os.fsdecode(b"images/\xff.png"))
    assert listed(scan(root, tmp_path))["uri"].tolist()[-1] == "images/\ufffd.png"


class TestErrors:
    def test_missing_root(self, tmp_path):
        with pytest.raises(DataError, match=r"Cannot list .*/nowhere: it does not exist"):
            scan(tmp_path / "nowhere", tmp_path)

    def test_no_images_names_the_root_and_what_was_looked_for(self, tmp_path, write_csv):
        csv = write_csv(tmp_path / "data/Data_Entry.csv", [])
        (csv.parent / "images").symlink_to(tmp_path / "outside")
        message = (
            r"no images in .*/data: no file below it.*\.png.* links that lead nowhere .*: 1 in .*"
            r"\(images\)\. Bring back .* Set data\.root"
        )
        with pytest.raises(DataError, match=message):
            scan(csv.parent, tmp_path)

    def test_no_csv_says_what_was_looked_for(self, make_root, tmp_path):
        root = make_root(2)
        (root / "Data_Entry_2017_v2020.csv").rename(root / "x.txt")
        touch(root / "other.csv", b"a,b\n")
        message = (
            r"No table in .* is of a known data set\. Found, .*: other\.csv \('a', 'b'\)\. None "
            r"of them has a column .* set data\.csv to .* set data\.dataset to table: and data\.col"
        )
        with pytest.raises(DataError, match=message):
            scan(root, tmp_path)

    def test_several_csvs_are_listed(self, make_root, tmp_path):
        root = make_root(2)
        touch(root / "old/Data_Entry_2017.csv")
        message = r"2 tables .*Data_Entry_2017_v2020\.csv, old/Data_Entry_2017\.csv\. Set data\.csv"
        with pytest.raises(DataError, match=message):
            scan(root, tmp_path)

    def test_missing_configured_csv(self, make_root, tmp_path):
        with pytest.raises(DataError, match=r"Cannot read /no/such\.csv: it does not exist"):
            scan(make_root(2), tmp_path, csv="/no/such.csv")

    def test_unknown_protocol(self, tmp_path):
        with pytest.raises(ValueError, match="'gopher' is no protocol that is known here"):
            scan("gopher://x", tmp_path)

    def test_missing_bucket_is_chained(self, s3, tmp_path):
        with pytest.raises(DataError, match="Cannot list s3://no-such-bucket/x") as caught:
            scan("s3://no-such-bucket/x", tmp_path)
        assert isinstance(caught.value.__cause__, FileNotFoundError)

    def test_no_credentials(self, s3, tmp_path, monkeypatch):
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        S3FileSystem.clear_instance_cache()
        with pytest.raises(DataError, match=r"Cannot list s3://xrays: .*Credentials come from"):
            scan("s3://xrays", tmp_path)

    def test_refused_credentials(self, refusing_s3, tmp_path):
        with pytest.raises(DataError, match=r"Cannot list s3://xrays: access is denied.*AWS_END"):
            scan("s3://xrays", tmp_path)


REFUSAL = b"<Error><Code>InvalidAccessKeyId</Code><Message>unknown key</Message></Error>"


@pytest.fixture
def refusing_s3(s3, monkeypatch):
    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(403)
            self.send_header("Content-Length", str(len(REFUSAL)))
            self.end_headers()
            self.wfile.write(REFUSAL)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    S3FileSystem.clear_instance_cache()
    yield
    server.shutdown()
    server.server_close()


def test_scans_a_bucket_in_one_listing(s3, make_root, tmp_path):
    local = make_root(4)
    for path in local.rglob("*.*"):
        s3.put_file(str(path), f"xrays/nih/{path.relative_to(local)}")
    s3.pipe_file("xrays/nih-old/images/00000009_000.png", b"not below the root")
    source = scan("s3://xrays/nih/", tmp_path)
    listing = listed(source)
    assert listing["uri"].tolist() == listed(scan(local, tmp_path))["uri"].tolist()
    assert listing["version"].str.fullmatch("[0-9a-f]{32}").all()  # ETags, without quotes
    s3.pipe_file("xrays/nih/images/00000001_000.png", b"another image")
    assert scan("s3://xrays/nih/", tmp_path).fingerprint != source.fingerprint


def test_many_files_are_listed_quickly(make_root, tmp_path):
    root = make_root(2)
    for number in range(5000):
        os.link(root / "images/00000001_000.png", root / f"images/{number:08d}_009.png")
    start = time.monotonic()
    assert len(listed(scan(root, tmp_path))) == 5002
    assert time.monotonic() - start < 3  # 0.1 s on an idle core
