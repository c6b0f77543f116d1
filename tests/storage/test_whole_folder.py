"""A folder of results appears whole, replaces an earlier one and nothing else."""

import pytest

from cxrmodel.storage.small_files import open_small_files
from cxrmodel.storage.whole_folder import publish_folder


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "made"
    (made / "figures").mkdir(parents=True)
    (made / "figures" / "a.png").write_bytes(b"a")
    (made / "metrics.json").write_text("new")
    return made


@pytest.fixture(params=["disk", "memory"])
def place(request, tmp_path):
    return str(tmp_path / "to" / "out") if request.param == "disk" else f"memory://{tmp_path}/out"


def content(place):
    files = open_small_files(place)
    return files.read(files.find())


def test_a_folder_appears_and_replaces_an_earlier_one(folder, place):
    new = {"figures/a.png": b"a", "metrics.json": b"new"}
    publish_folder(folder, place, "metrics.json")
    assert content(place) == new
    open_small_files(place).write("figures/old.png", b"old")
    open_small_files(place).write("metrics.json", b"old")
    publish_folder(folder, place, "metrics.json")
    assert content(place) == new


def test_what_is_no_earlier_result_is_not_lost(folder, place):
    open_small_files(place).write("thesis.docx", b"years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.docx, and they would be lost"):
        publish_folder(folder, place, "metrics.json")
    assert content(place) == {"thesis.docx": b"years of work"}


def test_a_file_in_the_way_is_named(folder, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(FileExistsError, match="is a file"):
        publish_folder(folder, str(tmp_path / "out"), "metrics.json")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_failed_exchange_leaves_the_earlier_result(folder, tmp_path, monkeypatch):
    place = tmp_path / "out"
    publish_folder(folder, str(place), "metrics.json")
    (folder / "metrics.json").write_text("newer")
    rename = type(place).rename

    def fail(path, target):
        if path.name.endswith(".partial"):
            raise OSError("the disk failed")
        return rename(path, target)

    monkeypatch.setattr(type(place), "rename", fail)
    with pytest.raises(OSError, match="the disk failed"):
        publish_folder(folder, str(place), "metrics.json")
    assert content(str(place))["metrics.json"] == b"new"
    assert {path.name for path in tmp_path.iterdir()} == {"made", "out"}


def test_figures_that_no_result_left_are_not_lost(folder, tmp_path):
    mine = tmp_path / "paper" / "figures" / "mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"years of work")
    with pytest.raises(FileExistsError, match=r"figures/mine\.png, and they would be lost"):
        publish_folder(folder, str(tmp_path / "paper"), "metrics.json")
    assert mine.read_bytes() == b"years of work"


def test_a_link_stays_a_link(folder, tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "out"
    link.symlink_to(tmp_path / "disk")
    publish_folder(folder, str(link), "metrics.json")
    assert link.is_symlink()
    assert content(str(tmp_path / "disk")) == {"figures/a.png": b"a", "metrics.json": b"new"}
    assert {path.name for path in tmp_path.iterdir()} == {"made", "out", "disk"}
