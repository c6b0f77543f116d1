import os
import shutil

import pytest

from cxrmodel.data.files.root import Root
from cxrmodel.errors import DataError, FileChangedError, ImageError


@pytest.fixture
def root(tmp_path):
    (tmp_path / "a.png").write_bytes(b"12345")
    return Root(str(tmp_path))


def test_a_file_as_listed_is_read_whole_or_in_part(root):
    (file,) = root.files()
    assert (file.uri, file.bytes) == ("a.png", 5)
    assert root.read("a.png", version=file.version) == b"12345"
    assert root.read("a.png", 2, version=file.version) == b"12"


def test_a_file_that_was_replaced_is_refused(root, tmp_path):
    (file,) = root.files()
    os.utime(tmp_path / "a.png", ns=(1, int(file.version) + 1))
    with pytest.raises(FileChangedError, match=r"a\.png was replaced after it was listed\. Run"):
        root.read("a.png", version=file.version)
    assert root.read("a.png") == b"12345"  # without a version the current content is read


def test_a_file_that_is_gone_is_not_a_changed_one(root, tmp_path):
    (file,) = root.files()
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileNotFoundError):
        root.read("a.png", version=file.version)


def test_what_costs_one_image_is_told_from_what_costs_the_run(root, tmp_path):
    (file,) = root.files()
    os.utime(tmp_path / "a.png", ns=(1, int(file.version) + 1))
    with pytest.raises(ImageError, match=f"replaced: it was version {file.version}"):
        root.read_image("a.png", 5, version=file.version)
    (tmp_path / "a.png").unlink()
    with pytest.raises(ImageError, match="unreadable: it was listed, and is no longer there"):
        root.read_image("a.png", 5)
    with pytest.raises(DataError, match=r"Cannot read .*/a\.png: it does not exist"):
        root.read_required("a.png")
    shutil.rmtree(tmp_path)
    with pytest.raises(OSError, match="is gone or out of reach"):
        root.read_image("a.png", 5)
