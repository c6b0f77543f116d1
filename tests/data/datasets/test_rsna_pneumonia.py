import json

NAMES = ("0004cfab-14fd-4e49", "00313ee0-9eaa-42f4", "00322d4d-1c29-4943")
LABELS = f"""\
    patientId,x,y,width,height,Target
    {NAMES[0]},,,,,0
    {NAMES[1]},264.0,152.0,213.0,379.0,1
    {NAMES[1]},562.0,152.0,256.0,453.0,1
    {NAMES[2]},,,,,0
"""
CLASSES = f"""\
    patientId,class
    {NAMES[0]},No Lung Opacity / Not Normal
    {NAMES[1]},Lung Opacity
    {NAMES[1]},Lung Opacity
    {NAMES[2]},Normal
"""
MAPPING = json.dumps(
    [
        {"SOPInstanceUID": "1.2", "img_id": f"0000000{7 if n < 2 else 8}_00{n}.png",
         "subset_img_id": name, "orig_labels": ["No Finding"]}
        for n, name in enumerate(NAMES)
    ]
)  # fmt: skip
FILES = {
    **{f"stage_2_train_images/{name}.png": None for name in NAMES},
    "stage_2_train_labels.csv": LABELS,
    "stage_2_detailed_class_info.csv": CLASSES,
    "stage_2_sample_submission.csv": "patientId,PredictionString\n",
}


def test_rows_per_box_become_one_per_image(indexed):
    files = {**FILES, "pneumonia-challenge-dataset-mappings_2018.json": MAPPING}
    index, excluded, notes = indexed(files)
    assert index.index.tolist() == [f"{name}.png" for name in NAMES]
    assert index["Pneumonia"].tolist() == [0, 1, 0]
    assert index["any_abnormal"].tolist() == [1, 1, 0]
    assert index["patient_id"].tolist() == ["7", "7", "8"]
    assert excluded.empty
    assert notes == []


def test_without_the_second_table_other_findings_are_not_known(indexed):
    files = {name: text for name, text in FILES.items() if "class_info" not in name}
    index, _, notes = indexed(files, patient_from="image")
    assert index["any_abnormal"].fillna(-1).tolist() == [-1, 1, -1]
    assert "train and test may share patients" in notes[0]


def test_an_odd_target_costs_its_image(indexed):
    table = LABELS.replace(f"{NAMES[2]},,,,,0", f"{NAMES[2]},,,,,?")
    files = {**FILES, "stage_2_train_labels.csv": table}
    _, excluded, _ = indexed(files, patient_from="image")
    assert excluded.to_numpy().tolist() == [[f"{NAMES[2]}.png", "unknown_label", "?"]]
