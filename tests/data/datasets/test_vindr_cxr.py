import pytest

from cxrmodel.data.datasets.vindr_cxr import LABELS
from cxrmodel.errors import DataError

FINDINGS = [*LABELS, "No finding"]


def cells(*found):
    return ",".join("1" if each in found else "0" for each in FINDINGS)


TRAIN = "\n".join(
    [
        f"image_id,rad_id,{','.join(FINDINGS)}",
        f"a1,R9,{cells('Cardiomegaly', 'Pleural effusion')}",
        f"a1,R10,{cells('Cardiomegaly')}",
        f"b2,R8,{cells('No finding')}",
        f"a1,R8,{cells('No finding')}",
        f"b2,R9,{cells('No finding')}",
        f"b2,R10,{cells('Other diseases')}",
    ]
)
TEST = "\n".join(
    [f"image_id,{','.join(FINDINGS)}".replace("Other diseases", "Other disease"),
     f"c3,{cells('Other diseases')}"]
)  # fmt: skip
FILES = {
    "train/a1.dicom": None,
    "train/b2.dicom": None,
    "test/c3.dicom": None,
    "annotations/image_labels_train.csv": TRAIN,
    "annotations/image_labels_test.csv": TEST,
    "annotations/annotations_train.csv": "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n",
}
PNG = {name.replace(".dicom", ".png"): text for name, text in FILES.items()}


@pytest.mark.parametrize(
    ("readers", "found", "abnormal"),
    [
        ("majority", [{"Cardiomegaly"}, set(), {"Other diseases"}], [1, 0, 1]),
        ("any", [{"Cardiomegaly", "Pleural effusion"}, {"Other diseases"}, {"Other diseases"}],
         [1, 1, 1]),
    ],
)  # fmt: skip
def test_three_readers_become_one_row(readers, found, abnormal, indexed):
    index, excluded, _ = indexed(PNG, readers=readers, patient_from="image")
    assert index.index.tolist() == ["a1.png", "b2.png", "c3.png"]
    assert [{x for x in LABELS if row[x] == 1} for _, row in index.iterrows()] == found
    assert index["any_abnormal"].tolist() == abnormal
    assert index["official"].tolist() == ["train", "train", "test"]
    assert excluded.empty


def test_nothing_says_whose_image_it_is_but_a_rule(indexed):
    with pytest.raises(DataError, match=r"bad_patient_id 3.*or set data\.patient_from"):
        indexed(PNG)


def test_dicom_files_without_a_suffix_dcm_are_images(indexed):
    with pytest.raises(DataError, match=r"unsupported_image 3|damaged_image 3"):
        indexed(FILES)


def test_an_odd_cell_costs_its_image(indexed):
    table = TRAIN.replace("b2,R9,0", "b2,R9,maybe")
    _, excluded, _ = indexed(
        {**PNG, "annotations/image_labels_train.csv": table}, patient_from="image"
    )
    assert excluded[["image", "reason"]].to_numpy().tolist() == [["b2.png", "unknown_label"]]
