"""Files without an ending, archives beside each other, and several roots as one."""

import zipfile

import pandas as pd
import pytest

from cxrmodel.data.files.listing import is_bare, is_image
from cxrmodel.data.files.root import Root, joint_root, shown_root
from tests.data.images.image_bytes import dicom, noise

DICOM = dicom(noise(), PatientID="7", ViewPosition="PA", PatientAge="058Y")


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("IM000001", True),
        ("a/1.2.840.113619.2", True),
        ("DICOMDIR", False),
        ("a/dicomdir", False),
        (".hidden", False),
        ("_SUCCESS", False),
        ("a.dcm", False),
        ("a.tmp", False),
        ("", False),
    ],
)
def test_a_bare_name_has_no_ending_or_that_of_a_uid(name, bare):
    assert is_bare(name) == bare
    assert is_image(name) == (bare or name == "a.dcm")


def uris(root):
    return [file.uri for file in Root(str(root)).files()]


def write(root, **contents):
    for name, content in contents.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_dicom_is_told_by_content_where_there_is_no_ending(tmp_path):
    write(tmp_path, DICOM__IM1=DICOM, DICOM__DICOMDIR=DICOM, LICENSE=b"text", Makefile=b"", x=DICOM)
    (tmp_path / "1.2.3").write_bytes(DICOM)
    (tmp_path / "empty").mkdir()
    assert uris(tmp_path) == ["1.2.3", "DICOM/IM1", "x"]


def test_what_may_not_be_read_is_left_out(tmp_path, monkeypatch):
    write(tmp_path, IM1=DICOM, IM2=DICOM)
    read = Root.read

    def refuse(self, uri, limit=None, *, version=""):
        if uri == "IM2":
            raise PermissionError(uri)
        return read(self, uri, limit, version=version)

    monkeypatch.setattr(Root, "read", refuse)
    root = Root(str(tmp_path))
    assert [file.uri for file in root.files()] == ["IM1"]
    assert "may not be read: 1 in" in root.oddities.sentences("here")[0]


def test_in_a_bucket_and_in_an_archive(s3, tmp_path):
    s3.pipe("xrays/set/IM1", DICOM)
    s3.pipe("xrays/set/README", b"text")
    assert uris("s3://xrays/set") == ["IM1"]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("study/IM1", DICOM)
        archive.writestr("study/README", b"text")
    assert uris(f"zip::{tmp_path}/x.zip") == ["study/IM1"]


def test_a_folder_of_dicom_files_needs_no_table(tmp_path, index_of):
    root = tmp_path / "export"
    lateral = dicom(noise(), PatientID="8", ViewPosition="LL")
    write(root, S1__IM1=DICOM, S1__IM2=DICOM, S2__IM1=lateral, DICOMDIR=DICOM, S3__c=b"no DICOM")
    write(root, S3__d=dicom(noise()))
    folder = index_of(root, dataset="table")
    index = pd.read_parquet(folder / "index.parquet")
    assert index["image"].tolist() == ["S1/IM1", "S1/IM2"]
    assert index[["patient_id", "age", "view"]].to_numpy().tolist() == [["7", 58, "PA"]] * 2
    excluded = pd.read_parquet(folder / "excluded.parquet")
    assert excluded[["image", "reason"]].to_numpy().tolist() == [
        ["S2/IM1", "lateral_view"],
        ["S3/d", "bad_patient_id"],
    ]


def test_archives_beside_each_other_are_one_data_set(tmp_path, png, write_csv, index_of):
    root = tmp_path / "nih"
    rows = [(f"0000000{n}_000.png", "Mass", str(n)) for n in range(4)]
    write_csv(root / "Data_Entry_2017_v2020.csv", rows)
    for number in range(2):
        with zipfile.ZipFile(root / f"images_00{number}.zip", "w") as archive:
            for row in rows[2 * number : 2 * number + 2]:
                archive.writestr(f"images/{row[0]}", png(int(row[2])))
    index = pd.read_parquet(index_of(root) / "index.parquet")
    assert index["image"].tolist() == [row[0] for row in rows]
    assert index["uri"][3] == "images_001.zip/images/00000003_000.png"


def test_a_joint_root_reads_each_file_from_its_own(tmp_path):
    write(tmp_path, a__x__1=b"", b__1=b"", a__1=b"")
    for folder in ("a", "a/x", "b"):
        (tmp_path / folder / "1.png").write_bytes(folder.encode())
    roots = {"one": f"{tmp_path}/a", "one/deep": f"{tmp_path}/b", "": f"{tmp_path}/a/x"}
    root = Root(joint_root(roots))
    assert {root.read(name) for name in ("one/x/1.png", "1.png")} == {b"a/x"}
    assert root.read("one/deep/1.png") == b"b"
    assert root.is_local
    assert root.exists()
    assert root.root == f"{tmp_path}/a/x"
    assert shown_root(joint_root({"a": "/x", "b": "s3://y"})) == "/x and s3://y"
