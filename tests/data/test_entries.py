import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrmodel.data.entries import parse_age, parse_patient_id, read_entries
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


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("58", 58),
        ("058Y", 58),
        ("58.0", 58),
        ("0", 0),
        ("018M", 1),
        ("003D", 0),
        ("060W", 1),
        ("120", 120),
        ("121", None),
        ("414", None),
        ("", None),
        ("-3", None),
        ("old", None),
        ("58.5", None),
    ],
)
def test_ages(text, years):
    assert parse_age(text) == years


@given(st.integers(0, 9999), st.sampled_from(["", "Y", "y", ".0", " Y"]), st.integers(0, 2))
def test_ages_of_any_spelling_are_the_number_or_absurd(years, unit, zeros):
    text = f"{years}{unit}" if years > 999 else "0" * zeros + f"{years}{unit}"
    if len(text.rstrip(".0Yy ")) > 4 or sum(c.isdigit() for c in text.split(".")[0]) > 4:
        return
    assert parse_age(text) == (years if years <= 120 else None)


@given(st.text())
def test_any_text_is_a_plausible_age_or_none(text):
    age = parse_age(text)
    assert age is None or 0 <= age <= 120


@pytest.mark.parametrize(
    ("text", "patient"),
    [
        ("1", "1"),
        ("00001", "1"),
        ("1.0", "1"),
        ("0", "0"),
        ("P-07", "P-07"),
        ("", ""),
        ("nan", ""),
        ("a\x00b", ""),
        ("9" * 65, ""),
    ],
)
def test_patient_ids(text, patient):
    assert parse_patient_id(text) == patient


@given(st.integers(0, 10**9), st.integers(0, 5))
def test_spellings_of_a_number_are_one_patient(number, zeros):
    spelled = {parse_patient_id("0" * zeros + f"{number}{end}") for end in ("", ".", ".0", ".00")}
    assert spelled == {str(number)}


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
