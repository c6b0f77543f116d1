"""What a table of parts may look like, and what is said where it is none."""

import gzip
import io

import pandas as pd
import pytest

from cxrmodel.config import DataConfig, SplitConfig
from cxrmodel.data.datasets.pseudonyms import SALT_VARIABLE, pseudonyms
from cxrmodel.data.split_file import SPELLINGS, read_split_table
from cxrmodel.errors import DataError, LeakageError, SplitError
from tests.servers.web import WebServer

ROWS = pd.DataFrame({"Image Index": ["b.png", "a.png", "c.png"], "Set": ["val", "train", "test"]})


@pytest.fixture
def read(tmp_path):
    """Read a table's content; return its rows as they are kept, and the table itself."""

    def read_content(content, data=DataConfig(), name="parts.csv"):  # noqa: B008 - it is frozen
        path = tmp_path / name
        path.write_bytes(content)
        config = SplitConfig(method="file", file=str(path))
        table = read_split_table(config, data, tmp_path / "scratch")
        return pd.read_parquet(table.path), table

    return read_content


def csv_of(frame, **options):
    return frame.to_csv(index=False, **options).encode()


def parquet_of(frame, **options):
    buffer = io.BytesIO()
    frame.to_parquet(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        csv_of(ROWS),
        csv_of(ROWS, sep="\t"),
        csv_of(ROWS, sep=";"),
        gzip.compress(csv_of(ROWS), mtime=0),
        csv_of(ROWS[::-1]),
        csv_of(pd.concat([ROWS, ROWS])),
        csv_of(ROWS.assign(Age=3)),
        csv_of(ROWS).decode().encode("utf-16"),
        parquet_of(ROWS),
        parquet_of(ROWS.set_index("Image Index")),
        parquet_of(ROWS.astype("category")),
    ],
)
def test_one_content_is_one_table_whatever_its_form(read, content):
    rows, table = read(content)
    assert rows.to_dict("list") == {
        "image": ["a.png", "b.png", "c.png"],
        "part": ["train", "val", "test"],
    }
    assert table.fingerprint == read(csv_of(ROWS), name="elsewhere.csv")[1].fingerprint
    assert table.note == (
        "The table of split.file: its column `Image Index` is read as the image, and `Set` as the "
        "part."
    )


def test_another_content_is_another_table(read):
    first = read(csv_of(ROWS))[1].fingerprint
    moved = ROWS.assign(Set=["test", "train", "val"])
    assert read(csv_of(moved))[1].fingerprint != first
    assert read(csv_of(ROWS[:2]))[1].fingerprint != first


def test_every_spelling_of_a_part_is_read(read):
    words = [(word, part) for part, each in SPELLINGS.items() for word in each]
    words += [("Train-Val", "train_val"), ("VALIDATION", "val"), ("Dev ", "val")]
    frame = pd.DataFrame({"image": range(len(words)), "split": [word for word, _ in words]})
    rows, _ = read(csv_of(frame))
    parts = dict(zip(rows["image"], rows["part"], strict=True))
    assert [parts[str(row)] for row in range(len(words))] == [part for _, part in words]


def test_a_blank_part_leaves_the_row_out(read):
    assert read(b"image,split\na,train\nb,\nc,NaN\n,test\n")[0]["image"].tolist() == ["a"]


def test_patient_ids_are_read_as_the_metadata_s(read):
    for content in (b"patient,split\n007,train\n", b"patient,split\n7.0,train\n"):
        assert read(content)[0]["patient_id"].tolist() == ["7"]
    frame = pd.DataFrame({"Patient ID": [7.0, 8.0], "split": ["train", "test"]})
    assert read(parquet_of(frame))[0]["patient_id"].tolist() == ["7", "8"]


def test_images_decide_where_there_are_patients_too(read):
    rows, _ = read(b"patient_id,image,split\n1,a,train\n1,b,test\n")
    assert rows.columns.tolist() == ["image", "part"]


def test_patients_get_the_pseudonyms_of_the_data_set(read, monkeypatch):
    monkeypatch.setenv(SALT_VARIABLE, "a secret of many letters")
    content = b"patient_id,split\n007,train\n8,test\n"
    rows, table = read(content, DataConfig(hash_patient_ids=True))
    assert rows["patient_id"].tolist() == sorted(
        pseudonyms(pd.Series(["7", "8"]), b"a secret of many letters")
    )
    assert table.fingerprint != read(content)[1].fingerprint


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", DataError, r"^split\.file: .*parts\.csv is empty\. Copy it again, or set split\.f"),
        (b"PAR1 and no more", DataError, "begins as a Parquet file and cannot be read as one"),
        (b"PK\x03\x04", DataError, "is no CSV but a zip archive or an Excel workbook"),
        (b"image,fold\na,1\n", DataError, "one of parts.*Columns found: `image`, `fold`"),
        (b"name,split\na,train\n", DataError, "needs a column of images or of patients"),
        (b"image,split\n", DataError, "gives no image a part"),
        (b"image,split\na,\n", DataError, "gives no image a part"),
        (
            b"image,split\na,train\nb,3\n",
            SplitError,
            r"1 rows with a part that is not known: `3`\. W",
        ),
        (b"image,split\na,train\na,test\n", SplitError, "1 of its images in .*`a` in test and tr"),
        (b"patient,split\n01,val\n1,test\n", LeakageError, "1 of its patients in .*`1` in test"),
    ],
)
def test_what_cannot_be_used_is_said_with_what_to_do(read, content, error, message):
    with pytest.raises(error, match=message):
        read(content)


def test_a_missing_file_is_named(tmp_path):
    config = SplitConfig(method="file", file=str(tmp_path / "nowhere.csv"))
    with pytest.raises(DataError, match=r"split\.file: Cannot read .*nowhere\.csv: it does not e"):
        read_split_table(config, DataConfig(), tmp_path)


def test_a_table_may_lie_behind_a_url(tmp_path):
    (tmp_path / "parts.csv").write_bytes(csv_of(ROWS))
    server = WebServer(tmp_path)
    config = SplitConfig(method="file", file=f"{server.url}/parts.csv")
    try:
        table = read_split_table(config, DataConfig(), tmp_path / "scratch")
    finally:
        server.stop()
    assert len(pd.read_parquet(table.path)) == 3
