"""Disks that are really full: small file systems in memory, mounted for the test."""

import shutil
import subprocess

import numpy as np
import pytest

from cxrmodel.config import DataConfig, ImagesConfig
from cxrmodel.data.images.pixel_cache import PixelCache
from cxrmodel.data.images.reader import ImageReader
from cxrmodel.data.index import build_index
from cxrmodel.data.source import scan_source
from cxrmodel.errors import DiskFullError, ScratchSpaceError
from cxrmodel.phantom import write_phantoms
from cxrmodel.storage.disk import check_writable, explain_full_disk
from cxrmodel.storage.store import Store

BLOCK = 4096
CONFIG = ImagesConfig(size=64)  # a block of pixels an image


class SmallDisk:
    def __init__(self, folder):
        self.folder = folder

    def fill(self, leave):
        """Take up all room but some bytes."""
        free = shutil.disk_usage(self.folder).free
        (self.folder / "ballast").write_bytes(bytes(free - leave))

    def free(self):
        (self.folder / "ballast").unlink()


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield SmallDisk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def images(tmp_path):
    write_phantoms(tmp_path / "xrays", 60, size_px=64)
    return DataConfig(root=str(tmp_path / "xrays"))


@pytest.fixture
def index(images, tmp_path):
    (tmp_path / "index").mkdir()
    build_index(images, scan_source(images, tmp_path / "elsewhere"), tmp_path / "index")
    return tmp_path / "index"


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_error_names_every_folder_and_its_room(small_disk, tmp_path):
    small_disk.fill(leave=0)
    message = (
        r"A disk is full: .*No space left on device.*Free some room, or choose another folder "
        rf"\(store\.scratch: {small_disk.folder}/new has 0 bytes free; "
        rf"store\.root: {tmp_path} has [\d,]+ bytes free\), and run again"
    )
    folders = {"store.scratch": small_disk.folder / "new", "store.root": tmp_path}
    with pytest.raises(DiskFullError, match=message), explain_full_disk(**folders):
        (small_disk.folder / "file").write_bytes(bytes(BLOCK))


def test_other_errors_pass(tmp_path):
    with pytest.raises(FileNotFoundError), explain_full_disk(**{"store.root": tmp_path}):
        (tmp_path / "missing").read_bytes()


class TestStore:
    def commit(self, store):
        with store.write("index", "0" * 64) as draft:
            for number in range(8):
                (draft.directory / f"{number}.bin").write_bytes(bytes([number]) * 8 * BLOCK)
            return draft.commit({}, {})

    def test_a_full_store_has_no_half_file_and_the_next_run_goes_on(self, small_disk, tmp_path):
        store = Store(str(small_disk.folder / "store"), tmp_path / "scratch")
        small_disk.fill(leave=30 * BLOCK)  # three files and a part of the fourth
        with pytest.raises(DiskFullError, match=r"store\.root: .*/disk/store has [\d,]+ bytes"):
            self.commit(store)
        left = files_below(small_disk.folder / "store")
        assert 1 <= len(left) <= 3
        assert all(
            (small_disk.folder / "store" / name).stat().st_size == 8 * BLOCK for name in left
        )
        assert files_below(tmp_path / "scratch") == []
        small_disk.free()
        artifact = self.commit(store)
        assert store.problems(artifact) == []

    def test_a_full_scratch_leaves_no_draft(self, small_disk, tmp_path):
        store = Store(str(tmp_path / "store"), small_disk.folder / "scratch")
        small_disk.fill(leave=30 * BLOCK)
        with pytest.raises(DiskFullError, match=r"store\.scratch: .*/disk/scratch has"):
            self.commit(store)
        assert files_below(small_disk.folder / "scratch") == []
        assert not (tmp_path / "store").exists()
        small_disk.free()
        assert store.problems(self.commit(store)) == []


def test_a_snapshot_that_does_not_fit_leaves_nothing(small_disk, images):
    small_disk.fill(leave=BLOCK)
    with pytest.raises(DiskFullError, match=r"store\.scratch: .*/disk/sources/"):
        scan_source(images, small_disk.folder)
    assert files_below(small_disk.folder) == ["ballast"]
    small_disk.free()
    assert scan_source(images, small_disk.folder).directory.is_dir()


class TestDecodedImages:
    @pytest.fixture
    def reader(self, images, index):
        return ImageReader(CONFIG, images.root, index, 1)

    @pytest.fixture
    def cache(self, index, small_disk):
        return PixelCache(CONFIG, index, 60, small_disk.folder)

    def test_are_refused_before_the_first_where_they_do_not_fit(self, cache, reader, small_disk):
        small_disk.fill(leave=40 * BLOCK)
        with pytest.raises(
            ScratchSpaceError, match=r"need 245,760 bytes in .*, and 1\d\d,\d{3} are"
        ):
            cache.build(reader, np.arange(60))
        assert (cache.statuses() == "").all()

    def test_stay_where_the_disk_fills_up_meanwhile(self, cache, reader, small_disk, monkeypatch):
        monkeypatch.setattr(cache, "_check_space", lambda num_rows: None)  # it was still free then
        small_disk.fill(leave=40 * BLOCK)
        with pytest.raises(DiskFullError, match=r"store\.scratch: .*/disk/images/.* has"):
            cache.build(reader, np.arange(60))
        finished = np.flatnonzero(cache.statuses() == "ok")
        small_disk.free()
        cache.build(reader, np.arange(60))
        assert (cache.statuses() == "ok").all()
        for row in (0, *finished.tolist(), 59):
            np.testing.assert_array_equal(cache.pixels()[row], reader.decode(row).pixels)


def test_a_folder_that_cannot_be_written_in_is_told_by_its_setting(small_disk, tmp_path):
    check_writable(**{"store.scratch": tmp_path / "new" / "scratch"})
    assert list((tmp_path / "new" / "scratch").iterdir()) == []
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk.folder)], check=True)
    with pytest.raises(ValueError, match=r"store\.scratch: cannot write in .*: Read-only file sys"):
        check_writable(**{"store.scratch": small_disk.folder / "scratch"})
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"store\.root: cannot write in .*/file: File exists"):
        check_writable(**{"store.root": tmp_path / "file"})
