import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrmodel.data.datasets import delimited
from cxrmodel.data.datasets.delimited import decode_table, header_of, read_columns
from cxrmodel.errors import DataError

COLUMNS = {"name": ("Name", "Full Name"), "size": ("Size",)}


def read(content, required=("name",)):
    return read_columns(content, COLUMNS, required, "The table")[0]


def test_a_column_that_is_not_there_is_empty():
    frame = read(b"Full_Name,Other\na,1\n")
    assert frame.to_dict("records") == [{"name": "a", "size": ""}]


def test_the_separator_is_that_of_the_header_not_of_the_data():
    frame = read(b"Name;Size\na,b,c,d;1\ne,f;2\n")
    assert frame.to_dict("list") == {"name": ["a,b,c,d", "e,f"], "size": ["1", "2"]}


def test_a_column_that_is_there_twice_must_say_one_thing():
    assert read(b"name,other,NAME\na,x,a\n")["name"].tolist() == ["a"]
    message = (
        r"The table has the column 'name' twice, as its columns 1 and 3, and they differ, for "
        r"example in row 2: 'b' and 'c'\. Delete one"
    )
    with pytest.raises(DataError, match=message):
        read(b"name,other,NAME\na,x,a\nb,x,c\n")


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
    message = r"The table begins as UTF-16, and from byte 12 on it is not: it is cut short or dam"
    with pytest.raises(DataError, match=message):
        read("Name\n".encode("utf-16") + b"x")


def test_an_empty_file_says_so():
    for content in (b"", b"\n \n", gzip.compress(b"")):
        with pytest.raises(DataError, match=r"The table is empty\. Copy it again"):
            read(content)


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


@pytest.mark.parametrize(
    ("content", "kind", "remedy"),
    [
        (
            b"PK\x03\x04\x14\0",
            "a zip archive or an Excel workbook",
            "Unpack it, or set",
        ),
        (
            b"\xef\xbb\xbf\n<!DOCTYPE html><title>Log in</title>",
            "a web page or XML",
            "Download the",
        ),
        (b' [{"Name": "a"}]', "JSON", "Write it as CSV"),
        ("Image Index".encode("utf-32"), "text in UTF-32", "Save it as UTF-8"),
        (b"PAR1\x15\x04", "a Parquet file", "Write it as CSV"),
        (b"BZh91AY&SY", "compressed with bzip2", "Decompress it, or"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS", "Fetch the file"),
        (
            gzip.compress(b"PK\x03\x04\x14\0", mtime=0),
            "a zip archive or an Excel workbook",
            "Unpack it",
        ),
    ],
)
def test_a_file_that_is_no_table_is_named_for_what_it_is(content, kind, remedy):
    with pytest.raises(DataError) as caught:
        read(content)
    assert str(caught.value).startswith(f"The table is no CSV but {kind}. {remedy}")


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (
            b"Exported\n\nSize;Name\n1;a\n",
            r"Line 3 has them: delete the lines above it\.$",
        ),
        (b"Size|Name\n1|a\n", r"Columns are separated by commas, semicolons or tabs\.$"),
        (b"x,y," * 50_000, r"All its 200,000 characters are one line: its line ends were lost\.$"),
        (b"a,b\n1,2\n", r"Columns found: 'a', 'b'\.$"),
    ],
)
def test_a_header_that_lacks_a_column_says_why(content, hint):
    with pytest.raises(DataError, match=rf"The table lacks required columns.*{hint}"):
        read(content)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_told_by_its_zeros(encoding):
    content = "Name,Size\nOed\u00e8me,1\n\u0416\u4e2d,2\n".encode(encoding)
    assert read(content)["name"].tolist() == ["Oed\u00e8me", "\u0416\u4e2d"]
    assert header_of(content[:31], COLUMNS)[0] == "Name"


@pytest.mark.parametrize("counters", [["1", "2"], ["0", "1"], ["7", "3"], ['"1"', '"2"']])
def test_names_of_rows_that_r_writes_are_skipped(counters, caplog):
    rows = [
        f"{counter},{name},{size}" for counter, name, size in zip(counters, "ab", "56", strict=True)
    ]
    content = "\n".join(["Name,Size", *rows]).encode()
    frame, notes = read_columns(content, COLUMNS, ("name",), "The table")
    assert frame.to_dict("list") == {"name": ["a", "b"], "size": ["5", "6"]}
    assert notes[0].startswith("The rows of The table have one field more than its header")
    assert notes[0] in caplog.text


@pytest.mark.parametrize(
    "rows",
    [
        ["1,a,", "2,b,"],  # surplus commas, after names that are numbers
        ["1,a,5", "1,b,6"],  # what is there twice counts no rows
        ["1,a,5", "x,b,6"],
    ],
)
def test_a_surplus_field_that_may_be_anything_moves_no_column(rows):
    frame, notes = read_columns("\n".join(["Name,Size", *rows]).encode(), COLUMNS, (), "The table")
    assert frame["name"].tolist() == [row[0] for row in rows]
    assert notes == []


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"Name,Size\n", b'Name;Size\n"', b"\x1f\x8b"])
)
def test_any_bytes_are_a_table_or_an_error_that_names_it(content, head):
    try:
        frame = read(head + content)
    except DataError as error:
        assert str(error).startswith("The table ")
    else:
        assert list(frame.columns) == ["name", "size"]


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
