"""A folder of DICOM images with a table of labels, from the listing to the pixels."""

import numpy as np
import pandas as pd
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.pixels import decode_images, open_pixels
from tests.data.images.image_bytes import dicom, encode, noise

CONFIG = ImagesConfig(size=64)
PEOPLE = {"PatientSex": "F", "ViewPosition": "PA", "ImagerPixelSpacing": [0.143, 0.143]}
DEEP = noise().astype(np.uint16) * 16  # 12 bits


@pytest.fixture
def root(tmp_path):
    """Write a folder of root, good and bad, and return it."""
    whole = dicom(noise(seed=3), PatientID="3", **PEOPLE)
    files = {
        "plain.dcm": dicom(noise(), PatientID="1", PatientAge="058Y", **PEOPLE),
        "inverted.dcm": dicom(
            DEEP, bits=12, PatientID="1", PhotometricInterpretation="MONOCHROME1",
            WindowCenter=2048, WindowWidth=4096, **PEOPLE,
        ),
        "named.dcm": encode(noise(seed=2)),
        "cut.dcm": whole[:-9],
        "cine.dcm": dicom(noise(), PatientID="4", NumberOfFrames=9),
        "packed.dcm": dicom(
            noise(), data=encapsulate([b"?"]), syntax=HTJ2KLossless, PatientID="5"
        ),
        "nobody.dcm": dicom(noise()),
    }  # fmt: skip
    root = tmp_path / "dicom"
    (root / "study").mkdir(parents=True)
    for name, data in files.items():
        (root / "study" / name).write_bytes(data)
    rows = [f"{name},No Finding" for name in files]
    (root / "labels.csv").write_text("\n".join(["Image Index,Finding Labels", *rows]))
    return root


def test_images_become_rows_and_pixels_and_the_rest_has_reasons(root, index_of, tmp_path):
    folder = index_of(root)
    index = pd.read_parquet(folder / "index.parquet").set_index("image")
    assert sorted(index.index) == ["cine.dcm", "cut.dcm", "inverted.dcm", "packed.dcm", "plain.dcm"]
    assert index.loc["plain.dcm", ["patient_id", "age", "sex", "view"]].tolist() == [
        "1", 58, "F", "PA"
    ]  # fmt: skip
    assert index.loc["plain.dcm", "pixel_spacing_mm"] == np.float32(0.143)
    without_patient = pd.read_parquet(folder / "excluded.parquet").set_index("image")["reason"]
    assert without_patient.to_dict() == {
        "named.dcm": "bad_patient_id",
        "nobody.dcm": "bad_patient_id",
    }

    images, scratch = tmp_path / "images", tmp_path / "scratch"
    images.mkdir()
    summary = decode_images(CONFIG, str(root), folder, images, scratch=scratch)
    assert summary["excluded_by_reason"] == {"unsupported_image": 2, "damaged_image": 1}
    pixels = open_pixels(CONFIG, str(root), folder, images, scratch=scratch)
    plain, inverted = pixels.read(pixels.rows_of(["plain.dcm", "inverted.dcm"]))
    np.testing.assert_array_equal(plain, noise())
    np.testing.assert_array_equal(inverted, 255 - np.rint(DEEP / 4095 * 255))


def test_the_ledger_says_what_nothing_here_decodes(root, index_of, tmp_path):
    folder = index_of(root)
    decode_images(CONFIG, str(root), folder, tmp_path, scratch=tmp_path / "scratch")
    details = pd.read_parquet(tmp_path / "excluded.parquet").set_index("image")["detail"]
    assert details["cine.dcm"] == "9 frames, and a chest X-ray has one"
    expected = f"no decoder for the transfer syntax {HTJ2KLossless.name}"
    assert details["packed.dcm"] == expected
    assert details["cut.dcm"] == "its pixels take 4,087 bytes, and should take 4,096"


def test_no_name_and_no_date_is_in_any_file(root, index_of, tmp_path):
    folder = index_of(root)
    decode_images(CONFIG, str(root), folder, tmp_path, scratch=tmp_path / "scratch")
    tables = [*folder.glob("*.parquet"), *tmp_path.glob("*.parquet")]
    assert len(tables) >= 5
    for table in tables:
        text = pd.read_parquet(table).to_csv()
        assert "GEHEIM" not in text
        assert "19610203" not in text
