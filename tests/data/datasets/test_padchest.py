import pytest

HEADER = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,"
    "ViewPosition_DICOM,Projection,MethodProjection,Pediatric,Labels,Localizations\n"
)


def row(number, projection="PA", labels="['normal']", birth="1938.0", sex="M", patient="p1"):
    image = f"2168401113669640_{number:02d}-000-000.png"
    return (
        f"{number},{image},0,20140915,S{number},{patient},{birth},{sex},POSTEROANTERIOR,{projection},"
        f'Manual review,No,"{labels}","[\'loc \']"\n'
    )


def files(*rows):
    images = {f"{n % 3}/2168401113669640_{n:02d}-000-000.png": None for n in range(len(rows))}
    table = HEADER + "".join(row(n, **each) for n, each in enumerate(rows))
    return {**images, "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz": table}


def test_projections_ages_and_sex(indexed):
    views = ["PA", "AP", "AP_horizontal", "L", "COSTAL", "EXCLUDE", "PA", "PA"]
    rows = [{"projection": view} for view in views]
    rows[6] |= {"birth": "", "sex": "O"}
    rows[7] |= {"birth": "2014"}
    index, excluded, _ = indexed(files(*rows))
    assert index["view"].tolist() == ["PA", "AP", "AP", "PA", "PA"]
    assert index["age"].fillna(-1).tolist() == [76, 76, 76, -1, 0]
    assert index["sex"].fillna("").tolist() == ["M", "M", "M", "", "M"]
    assert excluded["reason"].tolist() == ["lateral_view"] * 3
    assert indexed({}, views="all")[0]["view"].tolist().count("lateral") == 3


@pytest.mark.parametrize(
    ("labels", "found", "abnormal"),
    [
        ("['normal']", set(), 0),
        ("['pleural effusion', 'cardiomegaly']", {"Effusion", "Cardiomegaly"}, 1),
        ("[' laminar atelectasis ', 'NSG tube']", {"Atelectasis"}, 1),
        ("['subcutaneous emphysema']", set(), 1),
        ("['COPD signs']", set(), 1),
        ("['normal', 'pacemaker']", set(), 0),
        ("['air bronchogram']", {"Consolidation", "Infiltration"}, 1),
        ("['hydropneumothorax']", {"Effusion", "Pneumothorax"}, 1),
        ("['reticular interstitial pattern ']", {"Infiltration"}, 1),
        ("['tuberculosis sequelae', 'callus rib fracture']", {"Fracture", "Tuberculosis"}, 1),
        ("['breast mass']", set(), 1),
        ("['normal', 'dai', 'bone cement']", set(), 0),
        ("['Pneumonia']", {"Pneumonia"}, 1),
    ],
)
def test_terms_become_labels(labels, found, abnormal, indexed):
    index, _, _ = indexed(files({"labels": labels}))
    values = index.iloc[0][index.columns.get_loc("any_abnormal") + 1 :]
    assert {name for name, value in values.items() if value == 1} == found
    assert set(values) <= {0, 1}
    assert index["any_abnormal"].tolist() == [abnormal]


def test_devices_alone_leave_open_whether_an_image_is_abnormal(indexed):
    index, _, _ = indexed(files({"labels": "['central venous catheter']"}, {}))
    assert index["any_abnormal"].isna().tolist() == [True, False]


@pytest.mark.parametrize("labels", ["", "[]", "['exclude']", "['unchanged']", "nan"])
def test_rows_that_say_nothing_are_in_the_ledger(labels, indexed):
    index, excluded, _ = indexed(files({"labels": labels}, {}))
    assert len(index) == 1
    assert excluded["reason"].tolist() == ["empty_labels"]


def test_images_are_read_from_numbered_archives(lay_out, index_of):
    import zipfile  # noqa: PLC0415

    import pandas as pd  # noqa: PLC0415

    root = lay_out(files({}, {}, {}))
    for number in range(3):
        (image,) = (root / str(number)).iterdir()
        with zipfile.ZipFile(root / f"{number}.zip", "w") as archive:
            archive.write(image, image.name)
        image.unlink()
        (root / str(number)).rmdir()
    index = pd.read_parquet(index_of(root) / "index.parquet")
    assert index["uri"].tolist() == [
        f"{n}.zip/2168401113669640_{n:02d}-000-000.png" for n in range(3)
    ]
