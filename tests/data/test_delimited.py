import gzip
import io

import pytest

from cxrmodel.data import delimited
from cxrmodel.data.delimited import decode_table, header_of, read_columns
from cxrmodel.errors import DataError

COLUMNS = {"name": ("Name", "Full Name"), "size": ("Size",)}


def read(content, required=("name",)):
    return read_columns(content, COLUMNS, required, "The table")


def test_a_column_that_is_not_there_is_empty():
    frame = read(b"Full_Name,Other\na,1\n")
    assert frame.to_dict("records") == [{"name": "a", "size": ""}]


def test_the_separator_is_that_of_the_header_not_of_the_data():
    frame = read(b"Name;Size\na,b,c,d;1\ne,f;2\n")
    assert frame.to_dict("list") == {"name": ["a,b,c,d", "e,f"], "size": ["1", "2"]}


def test_the_first_of_two_columns_of_one_name_counts():
    assert read(b"name,NAME\na,b\n")["name"].tolist() == ["a"]


def test_a_file_that_is_not_utf8_is_read_as_latin_1_and_the_log_says_so(caplog):
    frame = read("Name,Size\nOedème,1\n".encode("latin-1"))
    assert frame["name"].tolist() == ["Oedème"]
    assert "The table is not in UTF-8" in caplog.text
    assert "so it is read as Latin-1" in caplog.text


def test_utf8_is_not_mentioned(caplog):
    assert read("Name,Size\nOedème,1\n".encode())["name"].tolist() == ["Oedème"]
    assert caplog.text == ""


def test_a_nul_does_not_end_a_text():
    assert read(b"Name,Size\na.png\x00/etc,1\n")["name"].tolist() == ["a.png\x00/etc"]


def test_half_a_character_of_utf_16_says_so():
    with pytest.raises(DataError, match=r"The table begins as UTF-16 and is not: .*truncated"):
        read("Name\n".encode("utf-16") + b"x")


def test_an_empty_file_says_so():
    with pytest.raises(DataError, match=r"The table lacks required columns.*Columns found: none"):
        read(b"")


@pytest.mark.parametrize("where", [slice(-9), slice(30)], ids=["end", "middle"])
def test_a_gzip_cut_short_says_so(where):
    content = gzip.compress(b"Name\n" + b"a\n" * 999)
    with pytest.raises(DataError, match="The table is damaged: it cannot be decompressed"):
        read(content[where])


def test_a_gzip_with_a_flipped_byte_says_so():
    content = bytearray(gzip.compress(b"Name\n" + bytes(range(32, 127))))
    content[30] ^= 0xFF
    with pytest.raises(DataError, match="The table is damaged: it cannot be decompressed"):
        read(bytes(content))


def test_a_gzip_that_grows_without_end_says_so(monkeypatch):
    monkeypatch.setattr(delimited, "MAX_TABLE_BYTES", 1 << 20)
    bomb = gzip.compress(b"Name\n" + b"0" * (2 << 20))
    assert len(bomb) < 4096
    with pytest.raises(DataError, match="The table has more than 1 MiB uncompressed"):
        decode_table(bomb, "The table")


def test_the_header_is_read_from_the_first_bytes_alone():
    rows = "Size;Name\n" + "\n".join(f"{n};{n * n}" for n in range(9999))
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb") as file:
        file.write(rows.encode())
    for content in (rows.encode(), stream.getvalue(), rows.encode("utf-16")):
        assert header_of(content[:2001], COLUMNS) == ["Size", "Name"]


@pytest.mark.parametrize("head", [b"", b"\x1f\x8bnot gzip", b"\n\n", bytes(range(256))])
def test_the_header_of_anything_is_a_list(head):
    assert "name" not in delimited.match_columns(header_of(head, COLUMNS), COLUMNS)
