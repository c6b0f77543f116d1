from .conftest import OBSERVATIONS, observed


def uri(number, ending="png"):
    folder = "images" if ending == "png" else "Anonymized_DICOMs"
    return f"{folder}/id_{number:04d}/Study_0{number}.1/Series_0{number}.2/image-0{number}.{ending}"


def row(number, view, **marks):
    paths = f"{uri(number, 'dcm')},{uri(number)}"
    return (
        f",{paths},id_{number:04d},F,75,acc,20080901,{observed(**marks)},{view},3056,2544,Maker\n"
    )


VIEWS = ("PA", "AP", "L", "RLO", "LLD", "AP LLD", "")
TABLE = (
    f",DicomPath,PngPath,PatientID,PatientSex,PatientAge,AccessionNumber,StudyDate,{OBSERVATIONS},"
    "ViewPosition,Rows,Columns,Manufacturer\n"
    + "".join(row(n, view, Cardiomegaly="1.0") for n, view in enumerate(VIEWS))
)  # fmt: skip
FILES = {"master_spreadsheet_update.csv": TABLE, **{uri(n): None for n in range(len(VIEWS))}}


def test_every_lateral_spelling_goes_to_the_ledger(indexed):
    index, excluded, _ = indexed(FILES)
    assert index["view"].fillna("").tolist() == ["PA", "AP", ""]
    assert index["patient_id"].tolist() == ["id_0000", "id_0001", "id_0006"]
    assert index["age"].tolist() == [75] * 3
    assert index["Cardiomegaly"].tolist() == [1] * 3
    assert index.index[0] == "id_0000/Study_00.1/Series_00.2/image-00.png"
    assert excluded["reason"].tolist() == ["lateral_view"] * 4


def test_the_same_images_as_dicom_are_left_out(indexed):
    index, excluded, _ = indexed({**FILES, uri(0, "dcm"): None})
    assert len(index) == 3
    assert excluded["reason"].tolist()[-1] == "row_missing"
