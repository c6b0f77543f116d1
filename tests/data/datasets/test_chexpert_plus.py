import json

from .conftest import OBSERVATIONS

HEADER = (
    "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,patient_report_date_order,"
    "report,age,sex,race,split\n"
)


def path(patient, view="frontal", part="train"):
    return f"{part}/patient{patient:05d}/study1/view1_{view}.jpg"


TABLE = HEADER + (
    f"{path(1)},a.dcm,Frontal,AP,patient00001,1,\"No, change\n of note\",68.0,Female,White,train\n"
    f"{path(2)},a.dcm,Frontal,PA,patient00002,1,text,91.0,Male,,train\n"
    f"{path(3, 'lateral')},a.dcm,Lateral,,patient00003,1,text,30,Male,,train\n"
    f"{path(4, part='valid')},a.dcm,Frontal,PA,patient00004,1,text,,Unknown,,valid\n"
)  # fmt: skip


def labels(**found):
    """Lines of JSON, one per image: the named finding is there, others are not mentioned."""
    lines = []
    for name, found_there in found.items():
        part = "valid" if name == "p4" else "train"
        marks = dict.fromkeys(OBSERVATIONS.split(",")) | {found_there: 1.0}
        lines.append(json.dumps({"path_to_image": path(int(name[1]), part=part), **marks}))
    return "\n".join(lines)


IMPRESSION = labels(p1="Pleural Effusion", p2="No Finding", p4="Edema")
FILES = {
    "df_chexpert_plus_240401.csv": TABLE,
    "chexbert_labels/impression_fixed.json": IMPRESSION,
    "chexbert_labels/findings_fixed.json": labels(p1="No Finding"),
    "chexbert_labels/report_fixed.json": labels(p1="Fracture", p2="Fracture"),
    **{f"PNG/{path(n).replace('.jpg', '.png')}": None for n in (1, 2)},
    f"PNG/{path(3, 'lateral').replace('.jpg', '.png')}": None,
    f"PNG/{path(4, part='valid').replace('.jpg', '.png')}": None,
}


def test_table_and_labels_of_the_impression_are_joined(indexed):
    index, excluded, _ = indexed(FILES)
    assert index.index.tolist() == [f"patient0000{n}/study1/view1_frontal.png" for n in (1, 2, 4)]
    assert index["patient_id"].tolist() == ["patient00001", "patient00002", "patient00004"]
    assert index["age"].fillna(-1).tolist() == [68, 91, -1]
    assert index["official"].tolist() == ["train", "train", "val"]
    assert index["Pleural Effusion"].tolist() == [1, 0, 0]
    assert index["any_abnormal"].tolist() == [1, 0, 1]
    assert excluded["reason"].tolist() == ["lateral_view"]


def test_labels_of_the_whole_report_stand_in(indexed):
    files = {name: text for name, text in FILES.items() if "impression" not in name}
    index, _, _ = indexed(files)
    assert index["Fracture"].tolist() == [1, 1]
