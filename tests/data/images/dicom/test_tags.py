import numpy as np
import pandas as pd
import pytest

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage  # noqa: E402


def write_film(path, **tags):
    """Write a film of 64 x 64 pixels with tags by keyword."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    film = pydicom.Dataset()
    film.file_meta = meta
    film.update({"SOPClassUID": SecondaryCaptureImageStorage, "SOPInstanceUID": "1.2.3"})
    film.Rows = film.Columns = 64
    film.BitsAllocated = film.BitsStored = 8
    film.HighBit, film.PixelRepresentation, film.SamplesPerPixel = 7, 0, 1
    film.PhotometricInterpretation = "MONOCHROME2"
    film.PixelData = np.zeros((64, 64), np.uint8).tobytes()
    for keyword, value in tags.items():
        setattr(film, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    film.save_as(path, enforce_file_format=True)


@pytest.fixture
def index_films(tmp_path, index_of):
    """Return a function from a CSV and films, name to tags, to the index and the ledger."""

    def index(csv, films, **settings):
        root = tmp_path / "data"
        for name, tags in films.items():
            write_film(root / "dicom" / name, **tags)
        (root / "labels.csv").write_text(csv)
        folder = index_of(root, **settings)
        tables = (pd.read_parquet(folder / f"{name}.parquet") for name in ("index", "excluded"))
        return tuple(tables)

    return index


def test_tags_tell_what_a_table_of_labels_does_not(index_films):
    index, ledger = index_films(
        "Image Index,Finding Labels\na.dcm,Mass\nb.DCM,No Finding\nc.dcm,Edema\n",
        {
            "a.dcm": {"PatientID": "0042", "PatientAge": "058Y", "PatientSex": "F",
                      "ViewPosition": "AP", "PixelSpacing": [0.139, 0.14]},
            "b.DCM": {"PatientID": "P-7", "PatientAge": "018M", "PatientSex": "O",
                      "ViewPosition": "XX", "ImagerPixelSpacing": [0.2, 0.2]},
            "c.dcm": {"PatientID": "P-8"},
        },
    )  # fmt: skip
    assert ledger.empty
    assert index["patient_id"].tolist() == ["42", "P-7", "P-8"]
    assert index["age"].tolist() == [58, 1, pd.NA]
    assert index["sex"].fillna("").tolist() == ["F", "", ""]
    assert index["view"].fillna("").tolist() == ["AP", "", ""]
    assert index["pixel_spacing_mm"].tolist() == [
        np.float32(0.139), np.float32(0.2), pd.NA
    ]  # fmt: skip
    assert str(index["pixel_spacing_mm"].dtype) == "Float32"
    assert index["Mass"].tolist() == [1, 0, 0]


def test_the_table_wins_over_the_tags(index_films):
    index, _ = index_films(
        "Image Index,Finding Labels,Patient ID,Patient Age,Patient Sex,View Position\n"
        "a.dcm,Mass,1,60,M,PA\nb.dcm,Mass,,,,\n",
        {name: {"PatientID": "9", "PatientAge": "033Y", "PatientSex": "F", "ViewPosition": "AP"}
         for name in ("a.dcm", "b.dcm")},
    )  # fmt: skip
    known = index[["patient_id", "age", "sex", "view"]].to_numpy().tolist()
    assert known == [["1", 60, "M", "PA"], ["9", 33, "F", "AP"]]


def test_films_of_nobody_and_from_the_side_are_in_the_ledger(index_films):
    index, ledger = index_films(
        "Image Index,Finding Labels\na.dcm,Mass\nb.dcm,Mass\nc.dcm,Mass\nd.dcm,Mass\n",
        {
            "a.dcm": {"PatientID": "1"},
            "b.dcm": {"PatientID": "1", "ViewPosition": "LL"},
            "c.dcm": {},
            "d.dcm": {"PatientID": "1\\2" + "x" * 64},
        },
    )
    assert index["image"].tolist() == ["a.dcm"]
    assert ledger[["image", "reason"]].to_numpy().tolist() == [
        ["b.dcm", "lateral_view"],
        ["c.dcm", "bad_patient_id"],
        ["d.dcm", "bad_patient_id"],
    ]


def test_a_file_that_is_no_dicom_file_says_so_and_not_that_it_is_of_nobody(index_films, tmp_path):
    films = {name: {"PatientID": "1"} for name in ("a.dcm", "b.dcm", "c.dcm")}
    table = "Image Index,Finding Labels,Patient ID\na.dcm,Mass,\nb.dcm,Mass,\nc.dcm,Mass,7\n"
    index_films(table, films)
    for name in ("b.dcm", "c.dcm"):
        path = tmp_path / "data" / "dicom" / name
        path.write_bytes(path.read_bytes()[132:])  # without preamble and prefix
    index, ledger = index_films(table, {})
    assert index["patient_id"].tolist() == ["1", "7"]  # of the last, decoding will tell
    assert ledger["image"].tolist() == ["b.dcm"]
    assert ledger["reason"].tolist() == ["unsupported_image"]
    assert ledger["detail"][0].startswith("not a PNG, JPEG or DICOM file: it begins with")


def test_laterals_are_found_by_any_tag_that_names_them(index_films):
    index, ledger = index_films(
        "Image Index,Finding Labels\na.dcm,Mass\nb.dcm,Mass\nc.dcm,Mass\nd.dcm,Mass\n",
        {
            "a.dcm": {"PatientID": "1", "SeriesDescription": "CHEST PA"},
            "b.dcm": {"PatientID": "1", "ViewPosition": "L"},
            "c.dcm": {"PatientID": "1", "ViewPosition": "RLO"},
            "d.dcm": {"PatientID": "1", "ViewPosition": "", "SeriesDescription": "LATERAL"},
        },
    )
    assert index["image"].tolist() == ["a.dcm"]
    assert index["view"].isna().all()
    assert ledger["reason"].tolist() == ["lateral_view"] * 3


def test_only_the_drawn_share_is_opened(index_films, tmp_path):
    names = [f"{number}.dcm" for number in range(8)]
    rows = [f"{name},{'Mass' if i % 2 else 'No Finding'}" for i, name in enumerate(names)]
    table = "\n".join(["Image Index,Finding Labels", *rows])
    films = {name: {"PatientID": "1"} for name in names}
    whole, _ = index_films(table, films, fraction=0.5)
    left_out = set(names) - set(whole["image"])
    for name in left_out:
        (tmp_path / "data" / "dicom" / name).write_bytes(b"no film")
    again, ledger = index_films(table, {}, fraction=0.5)
    assert again["image"].tolist() == whole["image"].tolist()
    assert set(ledger["reason"]) == {"not_sampled"}


def test_a_png_among_them_has_no_spacing_and_needs_a_patient(index_films, tmp_path, png):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "b.png").write_bytes(png(1))
    index, _ = index_films(
        "Image Index,Finding Labels,Patient ID\na.dcm,Mass,\nb.png,Mass,2\n",
        {"a.dcm": {"PatientID": "1", "PixelSpacing": [0.5, 0.5]}},
    )
    assert index["patient_id"].tolist() == ["1", "2"]
    assert index["pixel_spacing_mm"].tolist() == [0.5, pd.NA]


def test_no_other_tag_leaves_the_file(index_films, tmp_path):
    films = {"a.dcm": {"PatientID": "1", "PatientName": "Doe^Jane", "PatientBirthDate": "19600102"}}
    index_films("Image Index,Finding Labels\na.dcm,Mass\n", films)
    written = [path.read_bytes() for path in (tmp_path / "index").iterdir()]
    assert written
    assert not any(b"Doe" in content or b"19600102" in content for content in written)
