import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cxrmodel.config import DataConfig, ImagesConfig
from cxrmodel.data.datasets.chexpert import ABNORMAL, CHEXPERT, OBSERVATIONS
from cxrmodel.data.datasets.registry import read_tables
from cxrmodel.data.images.pixels import decode_images, open_pixels
from cxrmodel.errors import DataError

HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,"
    "Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,"
    "Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
COLUMNS = HEADER.split(",")
IMAGE = "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"


def row(path=IMAGE, known="Female,68,Frontal,AP", **observed):
    by_name = {name.replace("_", " "): value for name, value in observed.items()}
    return ",".join([path, known, *(str(by_name.get(name, "")) for name in COLUMNS[5:])])


def read(*rows, **settings):
    content = "\n".join([HEADER, *rows]).encode()
    return read_tables(DataConfig(**settings), [content], ["The CSV of here"], False)[1]


def findings(entries, number=0):
    """The positive labels, the unknown ones, and `any_abnormal`."""
    row = entries.rows.iloc[number]
    assert entries.labels == ABNORMAL
    known = row[list(ABNORMAL)].dropna()
    abnormal = None if pd.isna(row["any_abnormal"]) else int(row["any_abnormal"])
    return set(known.index[known == 1]), set(ABNORMAL) - set(known.index), abnormal


def test_a_row_becomes_an_entry():
    entries = read(row(Cardiomegaly="1.0", Pleural_Effusion=1, Edema="0.0", Pneumonia=""))
    described = entries.rows.iloc[0][["image", "patient_id", "age", "sex", "view", "official"]]
    assert described.tolist() == [
        "patient00001/study1/view1_frontal.jpg", "patient00001", 68, "F", "AP", "train_val"
    ]  # fmt: skip
    assert findings(entries) == ({"Cardiomegaly", "Pleural Effusion"}, set(), 1)
    assert entries.reasons.tolist() == entries.details.tolist() == [""]


@pytest.mark.parametrize(
    ("path", "known", "expected"),
    [
        ("x/valid/patient64541/study1/view1_frontal.jpg", "Male,0,Frontal,PA",
         ["patient64541", 0, "M", "PA", "test"]),
        ("patient2/study1/view2_lateral.jpg", "Unknown,,Lateral,",
         ["patient2", pd.NA, pd.NA, "lateral", pd.NA]),
        ("CheXpert\\train\\patient3\\study1\\view1_frontal.jpg", ",,Frontal,",
         ["patient3", pd.NA, pd.NA, pd.NA, "train_val"]),
        ("p/2/a.jpg", "Female,90,Frontal,LL", ["", 90, "F", "lateral", pd.NA]),
        ("a.jpg", ",,,", ["", pd.NA, pd.NA, pd.NA, pd.NA]),
    ],
)  # fmt: skip
def test_what_is_known_of_an_image(path, known, expected):
    found = read(row(path, known)).rows.iloc[0][["patient_id", "age", "sex", "view", "official"]]
    assert [pd.NA if pd.isna(value) else value for value in found] == expected


@pytest.mark.parametrize(
    ("uncertain", "expected", "reason", "detail"),
    [
        ("negative", ({"Pneumonia"}, set(), 1), "", ""),
        ("positive", ({"Pneumonia", "Edema", "Fracture"}, set(), 1), "", ""),
        ("unknown", ({"Pneumonia"}, {"Edema", "Fracture"}, 1), "", ""),
        ("exclude", ({"Pneumonia"}, set(), 1), "uncertain_label", "Fracture -1, Edema -1.0"),
    ],
)
def test_uncertain_labels_become_what_is_asked(uncertain, expected, reason, detail):
    entries = read(row(Pneumonia=1, Edema="-1.0", Fracture=-1), uncertain=uncertain)
    assert findings(entries) == expected
    assert entries.reasons.tolist() == [reason]
    assert set(entries.details[0].split(", ")) == set(detail.split(", "))


@pytest.mark.parametrize(
    ("observed", "abnormal"),
    [
        ({"No_Finding": 1}, 0),
        ({"No_Finding": 1, "Support_Devices": 1}, 0),
        ({"Support_Devices": -1}, 0),
        ({"Lung_Opacity": 1}, 1),
        ({"Fracture": 1, "Support_Devices": 1}, 1),
        ({"Pleural_Other": 0, "Edema": 0}, 0),
    ],
)
def test_every_label_makes_an_image_abnormal_and_devices_do_not(observed, abnormal):
    entries = read(row(**observed))
    assert findings(entries)[2] == abnormal
    assert entries.reasons.tolist() == [""]


@pytest.mark.parametrize(
    ("observed", "reason", "detail"),
    [
        ({}, "empty_labels", ""),
        ({"No_Finding": 1, "Edema": 1}, "contradictory_labels", ""),
        ({"Edema": 2, "Fracture": "yes", "Pneumonia": -1}, "unknown_label",
         "Edema 2, Pneumonia -1, Fracture yes"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_used_have_a_reason(observed, reason, detail):
    entries = read(row(**observed))
    assert entries.reasons.tolist() == [reason]
    assert entries.details.tolist() == [detail]


VALUES = st.lists(st.sampled_from(["1", "0", "-1", "", "1.0", "-1.0"]), min_size=14, max_size=14)


@settings(max_examples=20)
@given(
    st.lists(VALUES, min_size=1, max_size=9),
    st.sampled_from(["negative", "positive", "unknown"]),
)
def test_any_observations_follow_the_policy(table, uncertain):
    rows = [dict(zip(OBSERVATIONS, values, strict=True)) for values in table]
    lines = [row(**{name.replace(" ", "_"): each[name] for name in each}) for each in rows]
    entries = read(*lines, uncertain=uncertain)
    yes = ("1", "1.0", "-1", "-1.0") if uncertain == "positive" else ("1", "1.0")
    for number, observed in enumerate(rows):
        positive = {name for name in ABNORMAL if observed[name] in yes}
        doubtful = {name for name in ABNORMAL if observed[name] in ("-1", "-1.0")}
        unknown = doubtful if uncertain == "unknown" else set()
        abnormal = 1 if positive else None if unknown else 0
        assert findings(entries, number) == (positive, unknown, abnormal)


def test_blanks_that_a_program_has_written_as_na_are_blanks():
    observed = dict.fromkeys((name.replace(" ", "_") for name in OBSERVATIONS), "NA")
    entries = read(row(**{**observed, "Edema": "1.0", "Fracture": "nan"}))
    assert entries.reasons.tolist() == [""]
    assert findings(entries) == ({"Edema"}, set(), 1)


def test_a_path_in_capitals_is_of_the_same_patient_and_part():
    entry = read(row(path=IMAGE.upper())).rows.iloc[0]
    assert (entry["patient_id"], entry["official"]) == ("patient00001", "train_val")


@pytest.fixture
def root(tmp_path):
    """Six images of three patients, named by view only, in the layout of the small download."""
    root = tmp_path / "CheXpert-v1.0-small"
    lines = {"train": [HEADER], "valid": [HEADER]}
    for number, (part, view) in enumerate(
        [("train", "view1_frontal"), ("train", "view1_frontal"), ("valid", "view1_frontal"),
         ("train", "view2_lateral")]
    ):  # fmt: skip
        path = f"{part}/patient{number % 3 + 1:05d}/study1/{view}.jpg"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(jpeg(number))
        known = f"Male,50,{view.split('_')[1].title()},{'AP' if 'frontal' in view else ''}"
        labels = {"Edema": 1} if number else {"No_Finding": 1}
        lines[part].append(row(f"{root.name}/{path}", known, **labels))
    for part, rows in lines.items():
        (root / f"{part}.csv").write_text("\n".join(rows) + "\n")
    return root


def jpeg(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def test_both_tables_are_indexed_and_images_of_one_name_stay_apart(root, index_of):
    (root / "train/patient00009/study1").mkdir(parents=True)
    (root / "train/patient00009/study1/view1_frontal.jpg").write_bytes(jpeg(9))
    folder = index_of(root)
    index = pd.read_parquet(folder / "index.parquet")
    assert index["image"].tolist() == [
        f"patient{number:05d}/study1/view1_frontal.jpg" for number in (1, 2, 3)
    ]
    assert index["uri"].str.split("/").str[0].tolist() == ["train", "train", "valid"]
    assert index["official"].tolist() == ["train_val", "train_val", "test"]
    assert index["patient_id"].tolist() == ["patient00001", "patient00002", "patient00003"]
    assert index["Edema"].tolist() == [0, 1, 1]
    ledger = pd.read_parquet(folder / "excluded.parquet")
    assert ledger[["image", "reason"]].to_numpy().tolist() == [
        ["patient00001/study1/view2_lateral.jpg", "lateral_view"],
        ["patient00009/study1/view1_frontal.jpg", "row_missing"],
    ]


def test_pixels_are_those_of_each_patients_own_file(root, index_of, tmp_path):
    index, config = index_of(root), ImagesConfig(size=64)
    images = tmp_path / "images"
    images.mkdir()
    decode_images(config, str(root), index, images, scratch=tmp_path / "scratch")
    pixels = open_pixels(config, str(root), index, images, scratch=tmp_path / "scratch")
    found = pixels.read(pixels.rows_of(["patient00002/study1/view1_frontal.jpg"]))
    expected = np.asarray(Image.open(io.BytesIO(jpeg(1))))
    np.testing.assert_array_equal(found[0], expected)


def test_one_table_alone_will_do(root, index_of):
    index = pd.read_parquet(index_of(root, csv=str(root / "valid.csv")) / "index.parquet")
    assert index["image"].tolist() == ["patient00003/study1/view1_frontal.jpg"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("view1_frontal.jpg", "bad_image_name"),
        ("../../../etc/passwd", "bad_image_name"),
        ("train/patient00001/study1/view1_frontal.jpg/", "bad_image_name"),
        ("train\\patient00001\\study1\\view1_frontal.jpg", "duplicate_row"),
        ("/etc/patient00001/study1/passwd", "image_missing"),
        ("x/../patient00002/study1/view1_frontal.jpg", "duplicate_row"),
    ],
)
def test_a_path_is_compared_never_followed(path, reason, root, index_of):
    (root / "valid.csv").write_text(f"{HEADER}\n{row(path, Edema=1)}\n")
    ledger = pd.read_parquet(index_of(root) / "excluded.parquet")
    assert ledger["reason"].tolist() == ["lateral_view", reason, "row_missing"]


def test_a_table_of_another_data_set_is_named_with_what_it_lacks(root, index_of, write_csv):
    csv = write_csv(root / "other.csv", [("a.png", "Mass", "1")])
    message = r"lacks required columns.*image: 'Path'; Enlarged .*Columns found"
    with pytest.raises(DataError, match=message):
        index_of(root, csv=str(csv), dataset="chexpert")


def test_its_module_names_every_column_of_the_published_table():
    spelled = {spelling for names in CHEXPERT.columns.values() for spelling in names}
    assert spelled == set(COLUMNS)


def test_the_test_table_has_other_columns_and_makes_three_parts(indexed):
    images = dict.fromkeys(
        (
            "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg",
            "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg",
            "CheXpert/test/patient64741/study1/view1_frontal.jpg",
            "CheXpert/test/patient64741/study1/view2_lateral.jpg",
        )
    )
    names = list(images)
    tests = [",".join([f"test/{name.split('test/')[1]}", *"00010000100000"]) for name in names[2:]]
    index, excluded, _ = indexed(
        {
            **images,
            "CheXpert-v1.0-small/train.csv": "\n".join([HEADER, row(names[0], Edema=1)]),
            "CheXpert-v1.0-small/valid.csv": "\n".join([HEADER, row(names[1], No_Finding=1)]),
            "CheXpert/test_labels.csv": "\n".join(
                [",".join(["Path", *COLUMNS[6:], "No Finding"]), *tests]
            ),
        }
    )
    assert index["official"].tolist() == ["train", "val", "test"]
    assert index["Lung Lesion"].tolist() == [0, 0, 1]
    assert index["sex"].fillna("").tolist() == ["F", "F", ""]
    assert excluded[["image", "reason"]].to_numpy().tolist() == [
        ["patient64741/study1/view2_lateral.jpg", "lateral_view"]
    ]
