import os

import pytest

from cxrmodel.data.files.root import Root
from cxrmodel.errors import FileChangedError


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
    assert root.read("a.png") == b"12345"  # who does not ask for a version gets what is there


def test_a_file_that_is_gone_is_not_a_changed_one(root, tmp_path):
    (file,) = root.files()
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileNotFoundError):
        root.read("a.png", version=file.version)
