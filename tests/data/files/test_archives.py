"""Archives as roots: many threads, what cannot be unpacked, and what is told to unpack first."""

import io
import tarfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from cxrmodel.config import DataConfig, ImagesConfig
from cxrmodel.data.files.fsspec_files import FsspecPrefix
from cxrmodel.data.files.root import Root
from cxrmodel.data.images.reader import ImageReader
from cxrmodel.data.source import scan_source
from cxrmodel.errors import ChecksumError, DataError, UnreadableFileError
from tests.servers.web import WebServer

NUM_IMAGES, NUM_THREADS, ROUNDS = 60, 16, 3


@pytest.fixture
def folder(make_root):
    return make_root(NUM_IMAGES)


def zipped(folder, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    return path


@pytest.fixture
def url(request, folder, tmp_path):
    """Return the URL of the folder's files behind one of the protocols."""
    if request.param == "zip":
        yield f"zip::{zipped(folder, tmp_path / 'xrays.zip')}"
    elif request.param == "tar":
        with tarfile.open(tmp_path / "xrays.tar", "w") as archive:
            archive.add(folder, ".")
        yield f"tar::{tmp_path}/xrays.tar"
    elif request.param == "memory":
        fs = MemoryFileSystem()
        fs.put(str(folder), "/xrays", recursive=True)
        yield "memory://xrays"
        fs.rm("/xrays", recursive=True)
    else:
        server = WebServer(folder)
        yield server.url
        server.stop()


@pytest.mark.parametrize("url", ["zip", "tar", "memory", "web"], indirect=True)
def test_many_threads_get_each_image_its_own_bytes(url, folder):
    names = [file.uri for file in Root(url).files() if file.uri.endswith(".png")]
    expected = {name: (folder / name).read_bytes() for name in names}
    assert len(expected) == NUM_IMAGES
    for _ in range(ROUNDS):
        root = Root(url)  # whatever it makes ready, it makes ready anew
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            contents = dict(zip(expected, pool.map(root.read, expected), strict=True))
        assert contents == expected


def test_real_images_of_a_tar_archive_are_those_of_their_names(
    real_sample, write_csv, index_of, tmp_path
):
    """400 files of a few KB each: short reads in turn, which mix most easily."""
    small, rows = {}, []
    for path in sorted((real_sample / "images").iterdir()):
        stream = io.BytesIO()
        Image.open(path).convert("L").resize((64, 64)).save(stream, "JPEG")
        small[f"{path.stem}.jpg"] = stream.getvalue()
        rows.append((f"{path.stem}.jpg", "Mass", path.name[:8]))
    table = write_csv(tmp_path / "Data_Entry.csv", rows)
    with tarfile.open(tmp_path / "xrays.tar", "w") as archive:
        archive.add(table, table.name)
        for name, content in small.items():
            member = tarfile.TarInfo(f"images/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    root = f"tar::{tmp_path}/xrays.tar"
    reader = ImageReader(ImagesConfig(size=64), root, index_of(root), num_workers=NUM_THREADS)
    wrong = [
        reader.names[image.row]
        for image in reader.decode_many(range(len(reader.names)))
        if image.pixels is None
        or (
            image.pixels != np.asarray(Image.open(io.BytesIO(small[reader.names[image.row]])))
        ).any()
    ]
    assert (len(reader.names), wrong) == (400, [])


class OneAtATime(MemoryFileSystem):
    """A file system not known to allow threads, which indeed does not."""

    protocol = "oneatatime"
    busy = threading.Lock()

    def cat_file(self, path, start=None, end=None, **_):
        assert self.busy.acquire(blocking=False), "two threads at once"
        try:
            time.sleep(0.001)
            return path.encode()
        finally:
            self.busy.release()


def test_a_protocol_that_is_not_known_to_bear_threads_is_read_one_file_at_a_time():
    fsspec.register_implementation("oneatatime", OneAtATime, clobber=True)
    files = FsspecPrefix("oneatatime://xrays", (".png",))
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        names = [f"{number}.png" for number in range(50)]
        contents = list(pool.map(files.read, names))
    assert [content.decode().rsplit("/", 1)[-1] for content in contents] == names


def patched(archive, name, position, value):
    """Write a 2-byte field of a member's two headers, `position` in the local one."""
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as members:
        local = members.getinfo(name).header_offset
    central = data.index(b"PK\1\2")
    while bytes(data[central + 46 : central + 46 + len(name)]) != name.encode():
        central = data.index(b"PK\1\2", central + 4)
    for start in (local + position, central + position + 2):
        data[start : start + 2] = value.to_bytes(2, "little")
    archive.write_bytes(data)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (8, 9, "compression method is not supported"),  # Deflate64
        (6, 1, "is encrypted, password required"),
    ],
    ids=["method", "password"],
)
def test_a_member_that_cannot_be_unpacked_costs_that_image(
    position, value, message, folder, index_of, tmp_path
):
    archive = zipped(folder, tmp_path / "xrays.zip")
    patched(archive, "images/00000001_000.png", position, value)
    root = f"zip::{archive}"
    reader = ImageReader(ImagesConfig(size=64), root, index_of(root), num_workers=4)
    images = list(reader.decode_many(range(NUM_IMAGES)))
    assert [image.status for image in images] == ["unreadable"] + ["ok"] * (NUM_IMAGES - 1)
    assert message in images[0].detail
    assert "Unpack the archive into a folder" in images[0].detail


def test_a_table_that_cannot_be_unpacked_is_an_error_with_its_name(folder, index_of, tmp_path):
    archive = zipped(folder, tmp_path / "xrays.zip")
    patched(archive, "Data_Entry_2017_v2020.csv", 8, 9)
    with pytest.raises(DataError, match=r"not supported\. Unpack .*Data_Entry_2017_v2020\.csv of"):
        index_of(f"zip::{archive}")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_of_any_method_costs_that_image(method, tmp_path):
    archive, content = tmp_path / "xrays.zip", bytes(range(256)) * 40
    with zipfile.ZipFile(archive, "w", method) as members:
        members.writestr("a.png", content)
        members.writestr("b.png", content)
    data = bytearray(archive.read_bytes())
    start = 30 + len("a.png")
    data[start + 20 : start + 60] = b"\xff" * 40
    archive.write_bytes(data)
    files = FsspecPrefix(f"zip::{archive}", (".png",))
    assert files.read("b.png") == content
    with pytest.raises(UnreadableFileError, match=r"a\.png of zip::"):
        files.read("a.png")


def test_links_and_pipes_in_a_tar_archive(tmp_path):
    with tarfile.open(tmp_path / "xrays.tar", "w") as archive:
        member = tarfile.TarInfo("a.png")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
        for name, kind, target in (
            ("link.png", tarfile.SYMTYPE, "a.png"),
            ("dead.png", tarfile.SYMTYPE, "nowhere.png"),
            ("loop.png", tarfile.SYMTYPE, "loop.png"),
            ("pipe.png", tarfile.FIFOTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    files = FsspecPrefix(f"tar::{tmp_path}/xrays.tar", (".png",))
    assert {name for name, _, _ in files.objects()} >= {"a.png", "link.png"}
    assert files.read("link.png") == files.read("a.png") == b"abc"
    for name in ("dead.png", "loop.png", "pipe.png"):
        with pytest.raises(UnreadableFileError, match=rf"Unpack the archive .*{name} of tar::"):
            files.read(name)


def test_a_tar_archive_that_is_cut_short_is_damaged_or_refused(folder, tmp_path):
    with tarfile.open(tmp_path / "xrays.tar", "w") as archive:
        archive.add(folder / "images", "images")
    whole = (tmp_path / "xrays.tar").read_bytes()
    (tmp_path / "xrays.tar").write_bytes(whole[: len(whole) // 2 + 100])
    with pytest.raises((DataError, ChecksumError), match=r"xrays\.tar"):
        files = FsspecPrefix(f"tar::{tmp_path}/xrays.tar", (".png",))
        for name, _, _ in list(files.objects()):
            files.read(name)


@pytest.mark.parametrize("name", ["images_001.tar.gz", "xrays.TGZ", "xrays.tar.xz"])
def test_a_compressed_tar_archive_is_told_to_unpack(name, tmp_path):
    with tarfile.open(tmp_path / name, "w:xz" if name.endswith("xz") else "w:gz"):
        pass
    for url in (f"tar::{tmp_path}/{name}", f"tar://images::{tmp_path}/{name}"):
        message = rf"{name} is compressed as a whole.*Unpack the archive into a folder and set"
        with pytest.raises(DataError, match=message):
            Root(url)


@pytest.mark.parametrize("cache", ["simplecache", "filecache", "blockcache"])
def test_a_cache_before_a_root_is_refused_and_one_below_an_archive_is_not(cache, folder, tmp_path):
    with pytest.raises(DataError, match=r"Set data\.root to https://host/xrays: decoded images"):
        Root(f"{cache}::https://host/xrays")


def test_a_cache_below_an_archive_is_allowed(folder, tmp_path):
    archive = zipped(folder, tmp_path / "xrays.zip")
    assert len(Root(f"zip::simplecache::file://{archive}").files()) == NUM_IMAGES + 1


@pytest.mark.parametrize("protocol", ["zip", "tar"])
def test_absolute_names_are_told_to_unpack(protocol, tmp_path):
    path = tmp_path / f"xrays.{protocol}"
    if protocol == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("/data/a.png", b"a")
    else:
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo("/data/a.png"))
    with pytest.raises(DataError, match=r"absolute paths, as /data/a\.png, .* Unpack the archive"):
        Root(f"{protocol}::{path}")


def test_an_archive_within_an_archive_and_a_folder_as_one_are_told_what_to_write(folder, tmp_path):
    inner = zipped(folder, tmp_path / "inner.zip")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(inner, "inner.zip")
    url = f"zip://inner.zip::{tmp_path}/outer.zip"
    with pytest.raises(DataError, match=rf"an archive within an archive: .* to zip::{url}$"):
        scan_source(DataConfig(root=url), tmp_path / "scratch")
    assert scan_source(DataConfig(root=f"zip::{url}"), tmp_path / "scratch").tables()
    with pytest.raises(DataError, match="For a folder give the path alone"):
        Root(f"zip::{folder}")


def test_an_archive_at_a_remote_root_is_told_what_to_write(folder, s3, tmp_path):
    server = WebServer(tmp_path)
    zipped(folder, tmp_path / "xrays.zip")
    try:
        with pytest.raises(DataError, match=r"set data\.root to zip::http://.*/xrays\.zip$"):
            Root(f"{server.url}/xrays.zip").files()
    finally:
        server.stop()
    with pytest.raises(DataError, match=r"An archive is named after `::`, as in zip::/data/FILE"):
        Root(f"zip://{tmp_path}/xrays.zip")


def test_a_root_of_one_archive_says_so_in_a_bucket(s3, index_of):
    s3.pipe_file("xrays/nih/xrays.zip", b"x")
    with pytest.raises(DataError, match=r"no images in s3://xrays/nih/xrays\.zip.* set data\.root"):
        index_of("s3://xrays/nih/xrays.zip")


def test_what_no_file_system_is_known_to_raise_names_the_file(monkeypatch, folder, tmp_path):
    root = Root(f"zip::{zipped(folder, tmp_path / 'xrays.zip')}")
    for error in (KeyError("size"), TypeError("NoneType"), ZeroDivisionError("x")):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(root._files._fs, "cat_file", fail)
        with pytest.raises(DataError, match=r"images/00000001_000\.png"):
            root.read("images/00000001_000.png")
