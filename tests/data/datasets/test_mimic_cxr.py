import gzip

import pandas as pd
import pytest

from cxrmodel.errors import DataError

from .conftest import OBSERVATIONS, observed

METADATA = """\
    dicom_id,subject_id,study_id,ViewPosition,Rows,Columns,StudyDate,StudyTime,ViewCodeSequence_CodeMeaning
    02aa804e-bde0afdd,10000032,50414267,PA,3056,2544,21800506,213014.531,postero-anterior
    174413ec-4ec4c1f7,10000032,50414267,LATERAL,3056,2544,21800506,213014.531,lateral
    2a2277a9-b0ded155,10000032,53189527,,3056,2544,21800626,165500.312,antero-posterior
    e084de3b-be89b11e,10000764,57375967,AP,3056,2544,21321015,82100,antero-posterior
    68b5c4b1-227d0485,10000898,50771383,LL,3056,2544,21880807,221800,
    8959e402-2175d68d,10000935,50578979,AP,3056,2544,21870823,180100,
"""
CHEXPERT = "\n".join(
    [
        f"subject_id,study_id,{OBSERVATIONS}",
        f"10000032,50414267,{observed(No_Finding='1.0')}",
        f"10000032,53189527,{observed(Pleural_Effusion='1.0', Edema='-1.0', Pneumonia='0.0')}",
        f"10000764,57375967,{observed(Lung_Opacity='1.0')}",
        f"10000898,50771383,{observed(No_Finding='1.0')}",
    ]
)
NEGBIO = CHEXPERT.replace("10000764,57375967", "10000764,1")
SPLIT = """\
    dicom_id,study_id,subject_id,split
    02aa804e-bde0afdd,50414267,10000032,train
    2a2277a9-b0ded155,53189527,10000032,train
    e084de3b-be89b11e,57375967,10000764,validate
"""
FILES = {
    "files/p10/p10000032/s50414267/02aa804e-bde0afdd.jpg": None,
    "files/p10/p10000032/s50414267/174413ec-4ec4c1f7.jpg": None,
    "files/p10/p10000032/s53189527/2a2277a9-b0ded155.jpg": None,
    "files/p10/p10000764/s57375967/e084de3b-be89b11e.jpg": None,
    "files/p10/p10000935/s50578979/8959e402-2175d68d.jpg": None,
    "files/p10/p10000935/s50578979/index.html.jpg": None,
    "mimic-cxr-2.0.0-metadata.csv.gz": METADATA,
    "mimic-cxr-2.0.0-chexpert.csv.gz": CHEXPERT,
    "mimic-cxr-2.0.0-negbio.csv.gz": NEGBIO,
    "mimic-cxr-2.0.0-split.csv.gz": SPLIT,
}


def test_three_tables_become_one_row_per_image(indexed):
    index, excluded, notes = indexed(FILES)
    assert index.index.tolist() == [
        "02aa804e-bde0afdd.jpg", "2a2277a9-b0ded155.jpg", "e084de3b-be89b11e.jpg"
    ]  # fmt: skip
    assert index["patient_id"].tolist() == ["10000032", "10000032", "10000764"]
    assert index["view"].tolist() == ["PA", "AP", "AP"]
    assert index["official"].tolist() == ["train", "train", "val"]
    assert index["any_abnormal"].tolist() == [0, 1, 1]
    assert index["Pleural Effusion"].tolist() == [0, 1, 0]
    assert index["Lung Opacity"].tolist() == [0, 0, 1]
    assert set(index["source"]) == {"mimic-cxr"}
    assert list(zip(excluded["image"], excluded["reason"], strict=True)) == [
        ("174413ec-4ec4c1f7.jpg", "lateral_view"),
        ("68b5c4b1-227d0485", "image_missing"),
        ("8959e402-2175d68d.jpg", "empty_labels"),
        ("index.html.jpg", "row_missing"),
    ]
    assert notes == [
        "mimic-cxr-2.0.0-chexpert.csv.gz has no row for 1 of 6 images.",
        "mimic-cxr-2.0.0-split.csv.gz has no row for 3 of 6 images.",
    ]


def test_negbio_is_read_where_chexpert_is_not_there(indexed):
    files = {name: text for name, text in FILES.items() if "-chexpert" not in name}
    index, excluded, _ = indexed(files)
    assert len(index) == 2
    assert (
        "e084de3b-be89b11e.jpg" in excluded["image"][excluded["reason"] == "empty_labels"].tolist()
    )


def test_patients_of_mimic_iv_add_sex_and_age(indexed):
    patients = """\
        subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod
        10000032,F,52,2180,2014 - 2016,2180-09-09
        10000764,M,86,2130,2014 - 2016,
    """
    index, _, _ = indexed({**FILES, "hosp/patients.csv.gz": patients})
    assert index["sex"].tolist() == ["F", "F", "M"]
    assert index["age"].tolist() == [52, 52, 88]


def test_copies_in_another_format_and_folder_have_the_same_names(indexed):
    files = {name.rsplit("/", 1)[-1].replace(".jpg", ".png"): text for name, text in FILES.items()}
    index, _, _ = indexed(files)
    assert index.index.tolist()[0] == "02aa804e-bde0afdd.png"
    assert len(index) == 3


def test_the_same_images_in_two_formats_ask_which(indexed):
    both = {name.replace(".jpg", ".png"): text for name, text in FILES.items()}
    with pytest.raises(DataError, match=r"5 files|10 files .*several formats.*set data\.images to"):
        indexed({**FILES, **both})
    assert len(indexed({}, images="**/*.png")[0]) == 3


def test_without_labels_the_missing_table_is_named(indexed):
    files = {name: text for name, text in FILES.items() if "chexpert" not in name}
    files.pop("mimic-cxr-2.0.0-negbio.csv.gz")
    message = (
        r"MIMIC-CXR-JPG needs a table mimic-cxr-\*-chexpert\.csv or mimic-cxr-\*-negbio\.csv with "
        r"the columns 'subject_id', 'study_id', .*has none \(tables found: mimic-cxr-2\.0\.0-metad"
    )
    with pytest.raises(DataError, match=message):
        indexed(files)


def test_tables_may_lie_in_a_folder_of_their_own(indexed, lay_out, tmp_path):
    for name in [name for name in FILES if name.endswith(".gz")]:
        (tmp_path / "tables").mkdir(exist_ok=True)
        (tmp_path / "tables" / name).write_bytes(gzip.compress(FILES[name].encode()))
    images = {name: text for name, text in FILES.items() if name.endswith(".jpg")}
    assert len(indexed(images, csv=str(tmp_path / "tables"))[0]) == 3
    table = tmp_path / "tables/mimic-cxr-2.0.0-metadata.csv.gz"
    with pytest.raises(DataError, match=r"needs a table .* Set data\.csv to the folder that holds"):
        indexed(images, csv=str(table))


def test_two_rows_of_one_study_that_differ_stop(indexed):
    chexpert = f"{CHEXPERT}\n10000032,50414267,{observed(Edema=1)}\n"
    message = r"-chexpert\.csv\.gz has several rows for subject_id 10000032, study_id 50414267, and"
    with pytest.raises(DataError, match=message):
        indexed({**FILES, "mimic-cxr-2.0.0-chexpert.csv.gz": chexpert})
    same = f"{CHEXPERT}\n{CHEXPERT.splitlines()[1]}\n"
    assert len(indexed({**FILES, "mimic-cxr-2.0.0-chexpert.csv.gz": same})[0]) == 3


def test_unknown_uncertain_labels_are_null(indexed):
    index, _, _ = indexed(FILES, uncertain="unknown")
    assert pd.isna(index.loc["2a2277a9-b0ded155.jpg", "Edema"])
