"""What the index learns from the heads of DICOM files."""

import sys

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from cxrmodel.data.datasets.dicom_tags import read_headers
from cxrmodel.data.files.root import Root
from cxrmodel.errors import DataError
from tests.data.images.image_bytes import dicom, encode, noise

GREY = noise()
TAGS = {"PatientID": "P-7", "PatientAge": "058Y", "PatientSex": "F", "ViewPosition": "PA"}
TEXTS = ["patient_id", "age", "sex", "view"]
NOTHING = ["", "", "", ""]


class CountedRoot(Root):
    """A root that notes how many bytes each read asked for."""

    def __init__(self, root):
        super().__init__(root)
        self.limits = []

    def read(self, uri, limit=None, *, version=""):
        self.limits.append(limit)
        return super().read(uri, limit, version=version)


@pytest.fixture
def headers_of(tmp_path):
    """Return a function from the bytes of files to their headers, and the limits of the reads."""

    def read(*contents):
        for number, data in enumerate(contents):
            (tmp_path / f"{number}.dcm").write_bytes(data)
        root = CountedRoot(str(tmp_path))
        uris = [f"{number}.dcm" for number in range(len(contents))]
        files = pd.DataFrame({"uri": uris, "bytes": [len(data) for data in contents]})
        return read_headers(root, files), root.limits

    return read


def test_the_tags_of_an_image(headers_of):
    headers, limits = headers_of(dicom(GREY, **TAGS, ImagerPixelSpacing=[0.143, 0.2]))
    assert headers[TEXTS].loc[0].tolist() == ["P-7", "058Y", "F", "PA"]
    assert headers["pixel_spacing_mm"].tolist() == [np.float32(0.143)]
    assert list(headers.columns) == [*TEXTS, "pixel_spacing_mm", "reason", "detail"]
    assert headers.dtypes.astype(str).tolist() == ["str"] * 4 + ["float32"] + ["str"] * 2
    assert limits == [32 << 10]


def test_absent_tags_are_empty(headers_of):
    headers, _ = headers_of(dicom(GREY), dicom(GREY, PatientID="", PatientAge=""))
    assert headers[TEXTS].to_numpy().tolist() == [NOTHING, NOTHING]
    assert headers["pixel_spacing_mm"].isna().all()


def test_rows_and_index_are_those_of_the_files(tmp_path):
    for number in range(20):
        (tmp_path / f"{number}.dcm").write_bytes(dicom(GREY, PatientID=f"P{number}"))
    order = np.random.default_rng(0).permutation(20)
    files = pd.DataFrame({"uri": [f"{n}.dcm" for n in order], "bytes": 9, "image": "x"})
    files.index = pd.Index(order * 10)
    headers = read_headers(Root(str(tmp_path)), files)
    assert headers["patient_id"].tolist() == [f"P{n}" for n in order]
    assert headers.index.tolist() == (order * 10).tolist()


def test_no_files_give_no_rows(tmp_path):
    headers = read_headers(Root(str(tmp_path)), pd.DataFrame({"uri": [], "bytes": []}))
    columns = [*TEXTS, "pixel_spacing_mm", "reason", "detail"]
    assert (len(headers), list(headers.columns)) == (0, columns)


def test_implicit_encoding(headers_of):
    headers, _ = headers_of(dicom(GREY, syntax=ImplicitVRLittleEndian, **TAGS))
    assert headers[TEXTS].loc[0].tolist() == ["P-7", "058Y", "F", "PA"]


def view_code(meaning):
    """Return an item of a ViewCodeSequence."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "R-10236", "SRT", meaning
    return code


class TestView:
    @pytest.mark.parametrize(
        ("tags", "view"),
        [
            ({"ViewPosition": "PA", "SeriesDescription": "LATERAL"}, "PA"),
            ({"ViewPosition": "LLO"}, "lateral"),
            ({"ViewPosition": "", "SeriesDescription": "CHEST LATERAL"}, "lateral"),
            ({"ViewPosition": "XX", "SeriesDescription": "Thorax lat."}, "lateral"),
            ({"ProtocolName": "W033 Chest Lat"}, "lateral"),
            ({"ViewCodeSequence": [view_code("left lateral")]}, "lateral"),
            ({"SeriesDescription": "CHEST PA AND LATERAL"}, ""),
            ({"SeriesDescription": "CHEST, BILATERAL FLAT PLATE"}, ""),
            ({"ViewCodeSequence": [view_code("antero-posterior")]}, ""),
            ({"ViewCodeSequence": []}, ""),
        ],
    )
    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    def test_the_first_tag_that_says_so_counts(self, headers_of, tags, view, syntax):
        headers, _ = headers_of(dicom(GREY, syntax=syntax, **tags))
        assert headers.loc[0, ["view", "reason"]].tolist() == [view, ""]


class TestSpacing:
    def test_that_of_the_image_goes_before_that_of_the_imager(self, headers_of):
        both = dicom(GREY, PixelSpacing=[0.1, 0.2], ImagerPixelSpacing=[0.3, 0.4])
        assert headers_of(both)[0]["pixel_spacing_mm"].tolist() == [np.float32(0.1)]

    @pytest.mark.parametrize("spacing", ["0", "-1", "", "1E999"])
    @pytest.mark.filterwarnings("ignore")
    def test_what_no_image_can_have_is_missing(self, headers_of, spacing):
        headers, _ = headers_of(dicom(GREY, PixelSpacing=[spacing, "1"]))
        assert headers["pixel_spacing_mm"].isna().all()


class TestReads:
    def test_of_a_large_image_only_the_head_is_read(self, headers_of):
        headers, limits = headers_of(dicom(noise(512, 512), **TAGS))
        assert headers["patient_id"].tolist() == ["P-7"]
        assert limits == [32 << 10]

    def test_more_is_read_where_the_head_is_long(self, headers_of):
        image = dicom(GREY, **TAGS)
        preview = b"\x09\x00\x10\x10OB\0\0" + (100 << 10).to_bytes(4, "little") + bytes(100 << 10)
        patient = image.index(b"\x10\x00\x10\x00PN")
        headers, limits = headers_of(image[:patient] + preview + image[patient:])
        assert headers[TEXTS].loc[0].tolist() == ["P-7", "058Y", "F", "PA"]
        assert limits == [32 << 10, 512 << 10]

    def test_an_id_cut_by_the_end_of_the_file_is_no_id(self, headers_of):
        image = dicom(GREY, **{**TAGS, "PatientID": "PATIENT-12345"})
        cut = image[: image.index(b"12345")]
        assert headers_of(cut)[0][TEXTS].loc[0].tolist() == NOTHING

    def test_a_bucket(self, s3):
        s3.pipe_file("xrays/a/1.dcm", dicom(noise(300, 300), **TAGS))
        files = pd.DataFrame({"uri": ["a/1.dcm", "a/gone.dcm"], "bytes": [90_000, 9]})
        headers = read_headers(Root("s3://xrays"), files)
        assert headers["patient_id"].tolist() == ["P-7", ""]


class TestOddFiles:
    @pytest.mark.parametrize(
        ("data", "reason", "detail"),
        [
            (b"", "damaged_image", "the file is empty"),
            (b"<html>", "unsupported_image", "not a PNG, JPEG or DICOM file: it begins with"),
            (dicom(GREY, **TAGS)[132:], "unsupported_image", "not a PNG, JPEG or DICOM file"),
            (dicom(GREY, **TAGS)[:-1][:500], "", ""),
            (encode(GREY), "", ""),
            (bytes(128) + b"DICM", "damaged_image", "it ends before its tags say whose"),
            (dicom(GREY, **TAGS)[:330], "damaged_image", "it ends before its tags say whose"),
        ],
    )
    def test_what_has_no_tags_is_empty_and_says_why(self, headers_of, data, reason, detail):
        headers, _ = headers_of(data, dicom(GREY, **TAGS))
        assert headers["patient_id"].tolist()[1] == "P-7"
        assert headers["reason"].tolist() == [reason, ""]
        assert headers["detail"][0].startswith(detail)
        if reason:
            assert headers.loc[0, TEXTS].tolist() == NOTHING

    def test_deflated_tags_are_not_read(self, headers_of):
        headers, _ = headers_of(dicom(GREY, syntax=DeflatedExplicitVRLittleEndian, **TAGS))
        assert headers.loc[0, ["reason", "detail"]].tolist() == [
            "unsupported_image",
            "its tags are deflated, which is not read here",
        ]

    def test_a_file_that_is_gone_is_empty(self, tmp_path):
        headers = read_headers(Root(str(tmp_path)), pd.DataFrame({"uri": ["a.dcm"], "bytes": [9]}))
        assert headers[TEXTS].loc[0].tolist() == NOTHING
        assert headers.loc[0, "reason"] == "unreadable"

    def test_a_folder_in_place_of_a_file_has_replaced_it(self, tmp_path):
        (tmp_path / "folder.dcm").mkdir()
        files = pd.DataFrame({"uri": ["folder.dcm"], "bytes": [9]})
        assert read_headers(Root(str(tmp_path)), files)["reason"].tolist() == ["replaced"]

    def test_an_unreachable_store_is_an_error(self, tmp_path):
        files = pd.DataFrame({"uri": [f"{'x' * 300}.dcm"], "bytes": [9]})
        with pytest.raises(OSError, match="too long"):
            read_headers(Root(str(tmp_path)), files)

    def test_an_id_that_is_not_text_stays_distinct(self, headers_of):
        image = dicom(GREY, PatientID="PX")
        images = [image.replace(b"PX", last) for last in (b"P\xfe", b"P\xff")]
        headers, _ = headers_of(*images)
        assert headers["patient_id"].tolist() == ["P\\xfe", "P\\xff"]


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    files = pd.DataFrame({"uri": ["a.dcm"], "bytes": [9]})
    with pytest.raises(DataError, match=r"need pydicom: install the extra `dicom`, as in pip ins"):
        read_headers(Root(str(tmp_path)), files)


def write_image(path, **tags):
    """Write an image of 64 x 64 pixels with tags by keyword."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    image = pydicom.Dataset()
    image.file_meta = meta
    image.update({"SOPClassUID": SecondaryCaptureImageStorage, "SOPInstanceUID": "1.2.3"})
    image.Rows = image.Columns = 64
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation, image.SamplesPerPixel = 7, 0, 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.PixelData = np.zeros((64, 64), np.uint8).tobytes()
    for keyword, value in tags.items():
        setattr(image, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)


@pytest.fixture
def index_images(tmp_path, index_of):
    """Return a function from a CSV and images, name to tags, to the index and the ledger."""

    def index(csv, images, **settings):
        root = tmp_path / "data"
        for name, tags in images.items():
            write_image(root / "dicom" / name, **tags)
        (root / "labels.csv").write_text(csv)
        folder = index_of(root, **settings)
        tables = (pd.read_parquet(folder / f"{name}.parquet") for name in ("index", "excluded"))
        return tuple(tables)

    return index


def test_tags_tell_what_a_table_of_labels_does_not(index_images):
    index, ledger = index_images(
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


def test_the_table_wins_over_the_tags(index_images):
    index, _ = index_images(
        "Image Index,Finding Labels,Patient ID,Patient Age,Patient Sex,View Position\n"
        "a.dcm,Mass,1,60,M,PA\nb.dcm,Mass,,,,\n",
        {name: {"PatientID": "9", "PatientAge": "033Y", "PatientSex": "F", "ViewPosition": "AP"}
         for name in ("a.dcm", "b.dcm")},
    )  # fmt: skip
    known = index[["patient_id", "age", "sex", "view"]].to_numpy().tolist()
    assert known == [["1", 60, "M", "PA"], ["9", 33, "F", "AP"]]


def test_images_without_a_patient_and_lateral_views_are_in_the_ledger(index_images):
    index, ledger = index_images(
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


def test_a_file_that_is_no_dicom_file_is_reported_as_such_and_not_as_lacking_a_patient(
    index_images, tmp_path
):
    images = {name: {"PatientID": "1"} for name in ("a.dcm", "b.dcm", "c.dcm")}
    table = "Image Index,Finding Labels,Patient ID\na.dcm,Mass,\nb.dcm,Mass,\nc.dcm,Mass,7\n"
    index_images(table, images)
    for name in ("b.dcm", "c.dcm"):
        path = tmp_path / "data" / "dicom" / name
        path.write_bytes(path.read_bytes()[132:])  # without preamble and prefix
    index, ledger = index_images(table, {})
    assert index["patient_id"].tolist() == ["1", "7"]  # of the last, decoding will tell
    assert ledger["image"].tolist() == ["b.dcm"]
    assert ledger["reason"].tolist() == ["unsupported_image"]
    assert ledger["detail"][0].startswith("not a PNG, JPEG or DICOM file: it begins with")


def test_laterals_are_found_by_any_tag_that_names_them(index_images):
    index, ledger = index_images(
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


def test_only_the_drawn_share_is_opened(index_images, tmp_path):
    names = [f"{number}.dcm" for number in range(8)]
    rows = [f"{name},{'Mass' if i % 2 else 'No Finding'}" for i, name in enumerate(names)]
    table = "\n".join(["Image Index,Finding Labels", *rows])
    images = {name: {"PatientID": "1"} for name in names}
    whole, _ = index_images(table, images, fraction=0.5)
    left_out = set(names) - set(whole["image"])
    for name in left_out:
        (tmp_path / "data" / "dicom" / name).write_bytes(b"no image")
    again, ledger = index_images(table, {}, fraction=0.5)
    assert again["image"].tolist() == whole["image"].tolist()
    assert set(ledger["reason"]) == {"not_sampled"}


def test_a_png_among_them_has_no_spacing_and_needs_a_patient(index_images, tmp_path, png):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "b.png").write_bytes(png(1))
    index, _ = index_images(
        "Image Index,Finding Labels,Patient ID\na.dcm,Mass,\nb.png,Mass,2\n",
        {"a.dcm": {"PatientID": "1", "PixelSpacing": [0.5, 0.5]}},
    )
    assert index["patient_id"].tolist() == ["1", "2"]
    assert index["pixel_spacing_mm"].tolist() == [0.5, pd.NA]


def test_no_other_tag_leaves_the_file(index_images, tmp_path):
    tags = {"PatientID": "1", "PatientName": "Doe^Jane", "PatientBirthDate": "19600102"}
    index_images("Image Index,Finding Labels\na.dcm,Mass\n", {"a.dcm": tags})
    written = [path.read_bytes() for path in (tmp_path / "index").iterdir()]
    assert written
    assert not any(b"Doe" in content or b"19600102" in content for content in written)
