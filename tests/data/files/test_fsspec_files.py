import importlib.util
import random
import zipfile

import pytest

from cxrmodel.data.files.fsspec_files import FsspecPrefix
from cxrmodel.errors import ChecksumError, DataError
from tests.servers.web import WebServer

SUFFIXES = (".png", ".csv")


@pytest.fixture
def folder(tmp_path):
    """Return a folder of three files, one with a name that no URL can hold."""
    root = tmp_path / "xrays"
    for name in ("a.PNG", "x/b c%é.png", "x/y/c.csv", "README.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode() * 100)
    return root


@pytest.fixture
def web(folder):
    server = WebServer(folder)
    yield server
    server.stop()


@pytest.fixture
def archive(folder, tmp_path):
    path = tmp_path / "xrays.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    return path


@pytest.fixture(params=["web", "zip"])
def files(request):
    """Return the same files behind one of the protocols."""
    if request.param == "web":
        return FsspecPrefix(request.getfixturevalue("web").url, SUFFIXES)
    return FsspecPrefix(f"zip::{request.getfixturevalue('archive')}", SUFFIXES)


def test_files_are_listed_by_their_names_and_read_by_them(files, folder):
    found = {name: (size, version) for name, size, version in files.objects()}
    assert set(found) == {"a.PNG", "x/b c%é.png", "x/y/c.csv"}
    for name, (size, version) in found.items():
        content = (folder / name).read_bytes()
        assert (size, version != "") == (len(content), True)
        assert files.read(name) == files.read(name, size + 1) == content
        assert files.read(name, 7) == content[:7]
    assert files.exists()


def test_a_file_that_is_not_there_is_not_found(files):
    with pytest.raises(FileNotFoundError):
        files.read("nowhere.png")


def test_a_file_that_is_not_listed_costs_no_request(web):
    list(FsspecPrefix(web.url, SUFFIXES).objects())
    assert not [path for _, path in web.requests if path.endswith(".md")]
    assert sorted(method for method, path in web.requests if path.endswith(".csv")) == ["HEAD"]


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, PermissionError), (403, PermissionError), (404, FileNotFoundError),
     (500, ConnectionError), (503, ConnectionError)],
)  # fmt: skip
def test_refusals_of_a_web_server_are_errors_of_a_file_system(status, error, web):
    web.answers["/a.PNG"] = status
    with pytest.raises(error, match=str(status) if status != 404 else "a.PNG"):
        FsspecPrefix(web.url, SUFFIXES).read("a.PNG")


@pytest.mark.parametrize("how", ["chunked", "gzipped"])
def test_files_of_which_the_server_tells_no_length_are_read(how, web, folder):
    setattr(web, how, {"chunked": True, "gzipped": ".csv"}[how])
    files = FsspecPrefix(web.url, SUFFIXES)
    found = {name: size for name, size, _ in files.objects()}
    assert found == {name: (folder / name).stat().st_size for name in found}
    assert set(found) == {"a.PNG", "x/b c%é.png", "x/y/c.csv"}
    for name in found:
        assert files.read(name) == (folder / name).read_bytes()
        assert files.read(name, 5) == (folder / name).read_bytes()[:5]
    (sentence,) = files.oddities.sentences(web.url)
    num_unsized = {"chunked": 3, "gzipped": 1}[how]
    assert f"as the web server does not tell it: {num_unsized} in {web.url} (" in sentence


def test_a_part_that_the_server_counts_after_compressing_is_read_whole(web, folder):
    web.gzipped, web.ranges_of_gzipped = ".PNG", True
    (folder / "a.PNG").write_bytes(random.Random(0).randbytes(500))  # grows where it is compressed
    data = FsspecPrefix(web.url, SUFFIXES).read("a.PNG", 501)
    assert data == (folder / "a.PNG").read_bytes()


def test_a_change_of_equal_length_is_another_version_where_the_server_tells_none(web, folder):
    web.chunked = True
    (before,) = (each for each in FsspecPrefix(web.url, SUFFIXES).objects() if each[0] == "a.PNG")
    (folder / "a.PNG").write_bytes(b"A.PNG" * 100)
    (after,) = (each for each in FsspecPrefix(web.url, SUFFIXES).objects() if each[0] == "a.PNG")
    assert before[:2] == after[:2]
    assert before[2] != after[2]


def test_dead_links_of_a_page_are_left_out_by_name(web):
    web.links = ["gone.png", "no_folder/", "?C=N;O=D", "mailto:a@b.png"]
    files = FsspecPrefix(web.url, SUFFIXES)
    assert {name for name, _, _ in files.objects()} == {"a.PNG", "x/b c%é.png", "x/y/c.csv"}
    (sentence,) = files.oddities.sentences("here")
    assert "links of the web server that lead nowhere" in sentence
    assert f"{web.url}/gone.png" in sentence
    assert f"{web.url}/no_folder" in sentence


@pytest.mark.parametrize("path", ["/a.PNG", "/x/y/"])
def test_a_server_that_fails_within_a_listing_leaves_nothing_out(path, web):
    web.answers[path] = 503
    with pytest.raises(ConnectionError, match="503"):
        list(FsspecPrefix(web.url, SUFFIXES).objects())


def test_a_web_address_that_is_not_there_is_not_found(web):
    with pytest.raises(FileNotFoundError):
        list(FsspecPrefix(f"{web.url}/nowhere/", SUFFIXES).objects())


def test_a_web_server_out_of_reach_is_worth_another_try(web):
    files = FsspecPrefix(web.url, SUFFIXES)
    web.stop()
    with pytest.raises(OSError, match=r"127\.0\.0\.1|onnect"):
        files.read("a.PNG")


def test_a_web_server_that_lists_nothing_says_so(web):
    web.lists = False
    with pytest.raises(DataError, match=r"http://.* lists no images .* each folder as a page of l"):
        list(FsspecPrefix(web.url, SUFFIXES).objects())


def test_a_damaged_member_of_an_archive_says_so(archive):
    content = bytearray(archive.read_bytes())
    content[content.index(b"a.PNGa.PNG") + 20] ^= 1
    archive.write_bytes(content)
    files = FsspecPrefix(f"zip::{archive}", SUFFIXES)
    with pytest.raises(ChecksumError, match=r"a\.PNG of zip::.*xrays\.zip is damaged: Bad CRC-32"):
        files.read("a.PNG")


def test_what_is_no_archive_says_so(tmp_path):
    (tmp_path / "xrays.zip").write_bytes(b"no archive")
    with pytest.raises(
        DataError, match=r"Cannot open zip::.*xrays\.zip: File is not .* copy it again\."
    ):
        FsspecPrefix(f"zip::{tmp_path}/xrays.zip", SUFFIXES)


def test_an_archive_that_was_replaced_is_read_anew(archive, tmp_path):
    url = f"zip::{archive}"
    before = {name: version for name, _, version in FsspecPrefix(url, SUFFIXES).objects()}
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("a.PNG", b"A.PNG" * 100)
    (tmp_path / "other.zip").replace(archive)
    ((name, size, version),) = FsspecPrefix(url, SUFFIXES).objects()
    assert (name, size) == ("a.PNG", 500)
    assert version != before["a.PNG"]


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
@pytest.mark.parametrize("url", ["gs://xrays/png", "zip::gs://xrays/a.zip"])
def test_google_cloud_without_its_package_names_the_extra(url):
    with pytest.raises(DataError, match=r"Cannot open .*gs://xrays.*: .*'cxrmodel\[gcs\]'\."):
        FsspecPrefix(url, SUFFIXES)


def test_an_unknown_protocol_says_so():
    with pytest.raises(DataError, match="Cannot open gopher://x: Protocol not known: gopher"):
        FsspecPrefix("gopher://x", SUFFIXES)
