import pytest

from cxrmodel.config import DataConfig
from cxrmodel.data.delimited import read_columns
from cxrmodel.data.nih import NIH
from cxrmodel.data.pathologies import PATHOLOGIES
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
    "byte order mark": "\ufeff" + V2020,
    "spaces": V2020.replace(",", " , "),
    "quoted brackets": V2020.replace(
        "OriginalImage[Width,Height]", '"OriginalImage[Width,Height]"'
    ).replace("2894,2729", '"2894,2729"'),
    "Windows line ends": V2020.replace("\n", "\r\n"),
    "other order": (
        "Patient Gender,Patient Age,View Position,Patient ID,Follow-up #,Image Index,"
        "Finding Labels\nM,58.0,pa,00001.0,1.0,00000001_001.png,Cardiomegaly|Emphysema\n"
    ),
    "surplus fields": V2020.replace("0.143\n", "0.143,,,,\n"),
}


def read(text, tmp_path, encoding="utf-8"):
    path = tmp_path / "entries.csv"
    path.write_bytes(text.encode(encoding))
    return read_entries(path, "The CSV of here")


@pytest.mark.parametrize("text", VARIANTS.values(), ids=VARIANTS)
def test_every_header_variant_gives_the_same_row(text, tmp_path):
    entries = read(text, tmp_path)
    assert entries.to_dict("records") == [
        {
            "image": "00000001_001.png",
            "labels": "Cardiomegaly|Emphysema",
            "patient_id": "1",
            "age": 58,
            "sex": "M",
            "view": "PA",
            "follow_up": 1,
        }
    ]
    assert entries.dtypes[["age", "follow_up"]].tolist() == ["Int16", "Int32"]


def test_only_three_columns_are_required_and_short_rows_are_kept(tmp_path):
    text = "Image Index,Finding Labels,Patient ID,Patient Age\na.png,Mass,1\nb.png\n"
    entries = read(text, tmp_path)
    assert entries["image"].tolist() == ["a.png", "b.png"]
    assert entries["labels"].tolist() == ["Mass", ""]
    assert entries["patient_id"].tolist() == ["1", ""]
    assert entries[["age", "sex", "view", "follow_up"]].isna().all(axis=None)


def test_missing_columns_are_named_with_those_found_and_accepted(tmp_path):
    message = (
        r"The CSV of here lacks required columns.*labels: 'Finding Labels' or 'Finding Label'; "
        r"patient_id: 'Patient ID'\. Columns found: 'Image Index', 'Age'\."
    )
    with pytest.raises(DataError, match=message):
        read("Image Index,Age\na.png,5\n", tmp_path)


def test_an_empty_csv_says_so(tmp_path):
    with pytest.raises(DataError, match="Columns found: none"):
        read("", tmp_path)


def test_a_csv_in_another_encoding_says_so(tmp_path):
    text = V2020.replace("Cardiomegaly", "Cardiomégalie")
    with pytest.raises(DataError, match=r"not text in UTF-8.*Save it as a CSV in UTF-8"):
        read(text, tmp_path, "latin-1")


def test_a_quote_that_never_ends_is_an_error_not_lost_rows(tmp_path):
    with pytest.raises(DataError, match=r"The CSV of here cannot be read as a CSV: .*EOF"):
        read(V2020 + '"00000001_002.png,Mass,1,1,58,M,PA,1,1,1,1\nb.png,Mass\n', tmp_path)
