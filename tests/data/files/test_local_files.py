"""Folders as people have them: links, closed folders, pipes, and files that change."""

import logging
import multiprocessing
import os
import traceback
from pathlib import Path

import pytest

from cxrmodel.data.files.local_files import LocalFolder
from cxrmodel.data.files.root import Root
from cxrmodel.errors import DataError, FileChangedError


def names_of(root):
    return [file.uri for file in Root(str(root)).files()]


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "data"
    (path / "images").mkdir(parents=True)
    (path / "images" / "a.png").write_bytes(b"12345")
    return path


@pytest.fixture
def outside(tmp_path):
    path = tmp_path / "cache"
    (path / "sub").mkdir(parents=True)
    (path / "sub" / "o.png").write_bytes(b"outside")
    return path


def test_links_in_a_circle_or_to_nothing_are_left_out_by_name(root, caplog):
    (root / "loop_a.png").symlink_to("loop_b")
    (root / "loop_b").symlink_to("loop_a.png")
    (root / "self.png").symlink_to("self.png")
    (root / "gone.png").symlink_to(root / "nowhere")
    (root / "long.png").symlink_to("x" * 300)
    assert names_of(root) == ["images/a.png"]
    assert (
        f"links that lead nowhere or in a circle: 5 in {root} "
        "(gone.png, long.png, loop_a.png, loop_b, self.png). Bring back"
    ) in caplog.text


def test_links_out_of_the_folder_are_followed_and_counted(root, outside, caplog):
    caplog.set_level(logging.INFO, "cxrmodel")
    (root / "o.png").symlink_to(outside / "sub" / "o.png")
    (root / "part").symlink_to(outside)
    (root / "part_again").symlink_to(outside / "sub")
    found = {file.uri: file for file in Root(str(root)).files()}
    assert list(found) == ["images/a.png", "o.png", "part/sub/o.png"]
    assert found["o.png"].bytes == len(b"outside")
    assert Root(str(root)).read("part/sub/o.png", version=found["o.png"].version) == b"outside"
    assert f"links that lead out of the folder: 2 in {root} (o.png, part). Whoever" in caplog.text


def test_folders_that_link_to_each_other_or_upwards_end(root, outside, caplog):
    (root / "out").symlink_to(outside)
    (outside / "back").symlink_to(root)
    (outside / "again").symlink_to(outside)
    (root / "up").symlink_to(root.parent)
    (root / "here").symlink_to(root / "images")
    assert names_of(root) == ["images/a.png", "out/sub/o.png"]
    assert f"links to a folder that holds this one: 1 in {root} (up)." in caplog.text


def test_a_root_that_is_a_link_is_walked(root, tmp_path):
    (tmp_path / "alias").symlink_to(root)
    assert names_of(tmp_path / "alias") == ["images/a.png"]


def as_nobody(folder, end):
    """List a folder as a user who owns nothing."""
    os.chdir(folder)
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        files = LocalFolder(Path(), (".png",))
        names = [name for name, _, _ in files.objects()]
        end.send((names, files.oddities.sentences("here")))
    except OSError:
        end.send((traceback.format_exc(), []))


def listed_as_nobody(folder):
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    child = fork.Process(target=as_nobody, args=(folder, theirs), daemon=True)
    child.start()
    assert ours.poll(60)
    return ours.recv()


def test_folders_that_only_the_system_may_read_are_left_out_by_name(root, outside):
    for name, mode in {"lost+found": 0o000, "no_search": 0o444}.items():
        (root / name).mkdir()
        (root / name / "x.png").touch()
        (root / name).chmod(mode)
    (outside / "sub").chmod(0o000)
    (root / "linked.png").symlink_to(outside / "sub" / "o.png")
    try:
        names, sentences = listed_as_nobody(root)
    finally:
        for folder in (root / "lost+found", root / "no_search", outside / "sub"):
            folder.chmod(0o755)
    assert names == ["images/a.png"]
    (sentence,) = sentences
    assert "may not be read: 3 in here (linked.png, lost+found/, no_search/x.png). If" in sentence


def test_pipes_and_devices_are_no_images(root, caplog):
    os.mkfifo(root / "pipe.png")
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "folder.png").mkdir()
    assert names_of(root) == ["images/a.png"]
    assert f"pipes, sockets or devices with the name of a file: 2 in {root} (pipe" in caplog.text


def test_a_pipe_or_folder_in_place_of_a_listed_file_does_not_block(root):
    files = Root(str(root))
    (file,) = files.files()
    (root / "images" / "a.png").unlink()
    os.mkfifo(root / "images" / "a.png")
    with pytest.raises(FileChangedError, match=r"a\.png was replaced after it was listed"):
        files.read(file.uri, version=file.version)
    (root / "images" / "a.png").unlink()
    (root / "images" / "a.png").mkdir()
    with pytest.raises(FileChangedError, match=r"a\.png was replaced after it was listed"):
        files.read(file.uri, version=file.version)


def test_a_file_that_is_written_to_while_it_is_read_is_refused(root, monkeypatch):
    files = Root(str(root))
    (file,) = files.files()
    path, fstat, calls = root / "images" / "a.png", os.fstat, []

    def fstat_and_append(descriptor):
        status = fstat(descriptor)
        calls.append(descriptor)
        if len(calls) == 2:  # the version has been compared, and nothing read yet
            path.write_bytes(b"12345678")
            os.utime(path, ns=(1, int(file.version) + 1))
        return status

    monkeypatch.setattr(os, "fstat", fstat_and_append)
    with pytest.raises(FileChangedError, match="was replaced after it was listed"):
        files.read(file.uri, version=file.version)


def test_odd_names_are_listed_and_read(root):
    odd = ["new\nline.png", "50%#1?.png", "A.PNG", "a.png", "é" * 120 + ".png", "x y.png", "'.png"]
    for name in odd:
        (root / name).write_bytes(name.encode())
    files = Root(str(root))
    found = [file for file in files.files() if "/" not in file.uri]
    assert {file.uri for file in found} == set(odd)
    for file in found:
        assert files.read(file.uri, version=file.version) == file.uri.encode()


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("xrays.zip", r"set data\.root to zip::.*/xrays\.zip$"),
        ("XRAYS.TAR", r"set data\.root to tar::.*/XRAYS\.TAR$"),
        ("images_001.tar.gz", r"Unpack the archive into a folder and set data\.root to that\."),
        ("xrays.7z", r"Unpack the archive"),
        ("entries.csv", r"Set data\.root to the folder that holds the images\."),
    ],
)
def test_a_file_as_root_is_told_what_to_write(name, advice, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=rf"{name} is a file, and data\.root a folder .*{advice}"):
        Root(str(tmp_path / name))
