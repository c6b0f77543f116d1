import pytest

from cxrmodel.config import ImagesConfig
from cxrmodel.data.reader import ImageReader
from cxrmodel.data.root import Root

CONFIG = ImagesConfig(size=64)


@pytest.fixture
def reader(make_root, index_of, tmp_path):
    return ImageReader(CONFIG, str(tmp_path / "data"), index_of(make_root(6)), 2)


@pytest.mark.parametrize("spoil", [lambda data: data[:50], lambda data: b"\0" + data[1:]])
def test_a_transfer_that_went_wrong_once_is_repeated(spoil, reader, monkeypatch):
    whole, calls = Root.read, []

    def read(root, uri, limit=None):
        calls.append(uri)
        data = whole(root, uri, limit)
        return spoil(data) if len(calls) == 1 else data

    monkeypatch.setattr(Root, "read", read)
    assert reader.decode(0).status == "ok"
    assert len(calls) == 2


def test_a_store_out_of_reach_raises_and_says_at_which_image(reader, monkeypatch):
    def read(root, uri, limit=None):
        raise TimeoutError("no answer")

    monkeypatch.setattr(Root, "read", read)
    with pytest.raises(TimeoutError, match="no answer") as caught:
        reader.decode(0)
    assert "while reading images/00000001_000.png" in caught.value.__notes__[0]


def test_many_are_decoded_in_the_given_order(reader):
    rows = [4, 0, 5, 1]
    assert [decoded.row for decoded in reader.decode_many(rows)] == rows


def test_an_empty_file_is_damaged(reader, tmp_path):
    reader._bytes[0] = 0
    assert (reader.decode(0).status, reader.decode(0).detail) == (
        "damaged_image",
        "the file is empty",
    )
