import csv
import gzip
import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.data.datasets.registry import read_tables
from cxrmodel.errors import DataError

V2020 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
    "00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.143,0.143\n"
)
V2017 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
    "00000001_001.png,Cardiomegaly|Emphysema,1,1,058Y,M,PA,2894,2729,0.143,0.143,\n"
)
VARIANTS = {
    "v2020": V2020,
    "trailing comma and ages with a unit": V2017,
    "trailing comma in rows only": V2017.replace("x,y],\n", "x,y]\n"),
    "Patient Sex": V2020.replace("Gender", "Sex"),
    "underscores": V2020.replace("Finding Labels", "Finding_Labels").replace("Image I", "image_i"),
    "spaces": V2020.replace(",", " , "),
    "quoted brackets": V2020.replace(
        "OriginalImage[Width,Height]", '"OriginalImage[Width,Height]"'
    ).replace("2894,2729", '"2894,2729"'),
    "other order": (
        "Patient Gender,Patient Age,View Position,Patient ID,Follow-up #,Image Index,"
        "Finding Labels\nM,58.0,pa,00001.0,1.0,00000001_001.png,Cardiomegaly|Emphysema\n"
    ),
    "surplus fields": V2020.replace("0.143\n", "0.143,,,,\n"),
}


def separated(text, separator):
    """Return the rows with another separator, quoted where they need it."""
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator).writerows(csv.reader(io.StringIO(text)))
    return stream.getvalue().encode()


FILES = {
    **{name: text.encode() for name, text in VARIANTS.items()},
    "byte order mark": V2020.encode("utf-8-sig"),
    "UTF-16": V2020.encode("utf-16"),
    "Windows line ends": V2020.replace("\n", "\r\n").encode(),
    "line ends of old Macs": V2020.replace("\n", "\r").encode(),
    "blank lines": ("\r\n\n" + V2020.replace("\n", "\n\n")).encode(),
    "semicolons": separated(V2020, ";"),
    "tabs": separated(V2020, "\t"),
    "gzip": gzip.compress(V2020.encode()),
    "gzip in two members": gzip.compress(V2020[:99].encode()) + gzip.compress(V2020[99:].encode()),
    "all at once": gzip.compress(
        separated(V2017.replace("\n", "\r\n"), ";").decode().encode("utf-16")
    ),
}


def read(content, only_dicom=False):
    content = content.encode() if isinstance(content, str) else content
    return read_tables(DataConfig(), [content], ["The CSV of here"], only_dicom)[1]


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_every_variant_gives_the_same_row(content):
    rows = read(content).rows
    assert len(rows) == 1
    row = rows.iloc[0]
    known = row[["image", "patient_id", "age", "sex", "view", "follow_up"]].tolist()
    assert known == ["00000001_001.png", "1", 58, "M", "PA", 1]
    assert [name for name in PATHOLOGIES if row[name]] == ["Cardiomegaly", "Emphysema"]
    assert row["any_abnormal"] == 1
    assert rows.dtypes[["age", "follow_up", "any_abnormal", "Mass"]].tolist() == [
        "Int16",
        "Int32",
        "Int8",
        "Int8",
    ]


def test_only_three_columns_are_required_and_short_rows_are_kept():
    entries = read("Image Index,Finding Labels,Patient ID,Patient Age\na.png,Mass,1\nb.png\n")
    assert entries.rows["image"].tolist() == ["a.png", "b.png"]
    assert entries.rows["patient_id"].tolist() == ["1", ""]
    assert entries.rows[["age", "sex", "view", "follow_up", "official"]].isna().all(axis=None)
    assert entries.reasons.tolist() == ["", "empty_labels"]


def test_a_table_without_rows_has_no_entries():
    entries = read(V2020.splitlines()[0])
    assert len(entries.rows) == len(entries.reasons) == 0
    assert str(entries.rows["any_abnormal"].dtype) == "Int8"


def test_a_patient_column_is_not_required_of_dicom_files():
    text = "Image Index,Finding Labels\na.dcm,Mass\n"
    assert read(text, only_dicom=True).rows["patient_id"].tolist() == [""]
    with pytest.raises(DataError, match=r"lacks required columns.*: patient_id: 'Patient ID'\."):
        read(text)


def test_missing_columns_are_named_with_those_found_and_accepted():
    message = (
        r"The CSV of here lacks required columns.*labels: 'Finding Labels' or 'Finding Label'; "
        r"patient_id: 'Patient ID'\. Columns found: 'Image Index', 'Age'\."
    )
    with pytest.raises(DataError, match=message):
        read("Image Index,Age\na.png,5\n")


def test_a_quote_that_never_ends_is_an_error_not_lost_rows():
    with pytest.raises(
        DataError,
        match=r"The CSV of here cannot be read as a CSV: a quote that opens in line 3 is never",
    ):
        read(V2020 + '"00000001_002.png,Mass,1,1,58,M,PA,1,1,1,1\nb.png,Mass\n')


@given(
    st.lists(st.text("ab;,\t|\"'é ", max_size=5), min_size=2, max_size=2),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_any_text_in_any_dialect_is_read_back(texts, separator, line_end, encoding):
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    writer.writerows([["Image Index", "Finding Labels", "Patient ID"], [*texts, "7"]])
    rows = read(stream.getvalue().encode(encoding)).rows
    assert rows["image"].tolist() == [texts[0].strip()]
    assert rows["patient_id"].tolist() == ["7"]


class TestOtherShapes:
    """Copies of the data set as others have repacked it."""

    def test_kaggles_sample_nests_its_table_twice(self, indexed):
        table = (
            "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
            "View Position,OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,"
            "OriginalImagePixelSpacing_y\n"
            "00000013_005.png,Emphysema|Infiltration,005,00000013,060Y,M,AP,3056,2544,0.139,0.139\n"
            "00000013_026.png,No Finding,026,00000013,057Y,M,PA,2500,2048,0.168,0.168\n"
        )
        index, excluded, _ = indexed(
            {
                "sample/images/00000013_005.png": None,
                "sample/sample/images/00000013_005.png": None,
                "sample/images/00000013_026.png": None,
                "sample/sample_labels.csv": table,
                "sample/sample/sample_labels.csv": table,
            },
            images="sample/images",
        )
        assert index["age"].tolist() == [60, 57]
        assert index["Infiltration"].tolist() == [1, 0]
        assert index["follow_up"].tolist() == [5, 26]
        assert excluded.empty

    def test_the_copy_at_224_pixels_has_lists_of_other_names(self, indexed, tmp_path):
        folder = "images-224/images-224"
        files = {
            f"{folder}/00000001_000.png": None,
            f"{folder}/00000002_000.png": None,
            "Data_Entry_2017.csv": V2017.replace("00000001_001", "00000001_000")
            + V2017.splitlines()[1].replace("00000001_001", "00000002_000")
            + "\n",
            "train_val_list_NIH.txt": "00000001_000.png\n",
            "test_list_NIH.txt": "00000002_000.png\n",
            "BBox_List_2017_Official_NIH.csv": "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
            "00000001_000.png,Cardiomegaly,10.0,20.0,300.0,400.0,,,\n",
        }
        index, _, _ = indexed(files)
        assert index["official"].tolist() == ["train_val", "test"]
        boxes = pd.read_parquet(tmp_path / "index" / "boxes.parquet")
        assert boxes[["x", "y", "width", "height"]].to_numpy().tolist() == [[10, 20, 300, 400]]
