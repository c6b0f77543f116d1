import gzip

import pytest

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.chexpert import CHEXPERT
from cxrmodel.data.datasets.discovery import find_tables
from cxrmodel.data.files.root import Root
from cxrmodel.errors import DataError

NIH_ROW = "Image Index,Finding Labels,Patient ID\na.png,Mass,1\n"
CHEXPERT_ROW = ",".join(names[0] for names in CHEXPERT.columns.values()) + "\n"


@pytest.fixture
def find(tmp_path):
    """Return a function from files, name to text, to the tables found among them."""

    def find_among(files, only_dicom=False, **settings):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(text.encode()) if name.endswith("z") else text.encode())
        root = Root(str(tmp_path))
        return find_tables(DataConfig(**settings), root, root.files(), only_dicom)

    return find_among


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"Data_Entry_2017_v2020.csv": "anything", "meta.csv": NIH_ROW},
         ["Data_Entry_2017_v2020.csv"]),
        ({"a/DATA_ENTRY.CSV": "anything"}, ["a/DATA_ENTRY.CSV"]),
        ({"Data_Entry_2017.csv.gz": NIH_ROW}, ["Data_Entry_2017.csv.gz"]),
        ({"meta.csv.gz": NIH_ROW.replace(",", ";"), "other.csv": "a,b\n"}, ["meta.csv.gz"]),
        ({"x/valid.csv": CHEXPERT_ROW, "x/train.csv": CHEXPERT_ROW},
         ["x/train.csv", "x/valid.csv"]),
        ({"train.csv": CHEXPERT_ROW, "train_cheXbert.csv": CHEXPERT_ROW}, ["train.csv"]),
        ({"labels.csv": CHEXPERT_ROW, "train.csv": "id,loss\n"}, ["labels.csv"]),
        ({"meta.csv": NIH_ROW, "train.csv": "id,loss\n"}, ["meta.csv"]),
        ({"meta.csv": NIH_ROW, "BBOX_List_2017.csv": NIH_ROW}, ["meta.csv"]),
    ],
)  # fmt: skip
def test_tables_are_found_by_their_name_or_else_by_their_columns(files, found, find):
    assert find(files) == found


def test_a_choice_of_the_data_set_leaves_others_out(find):
    files = {"Data_Entry_2017.csv": NIH_ROW, "train.csv": CHEXPERT_ROW}
    assert find(files) == find(files, dataset="nih") == ["Data_Entry_2017.csv"]
    assert find(files, dataset="chexpert") == ["train.csv"]


def test_a_table_without_patients_is_one_of_dicom_files_alone(find):
    files = {"meta.csv": "Image Index,Finding Labels\n"}
    assert find(files, only_dicom=True) == ["meta.csv"]
    with pytest.raises(DataError, match="does not say which patient"):
        find(files)


def test_a_table_without_patients_says_so_and_which_file_has_no_tags_to_say_it(find):
    table = {"labels.csv": "Image Index,Finding Labels\na.dcm,Mass\n"}
    with pytest.raises(
        DataError,
        match=r"labels\.csv does not say .*\. Add the column `Patient ID`, or set data\.p",
    ):
        find({**table, "b.png": "x"})
    with pytest.raises(DataError, match=r"b\.png is not a DICOM file.* data\.images to the DICOM"):
        find({**table, "a.dcm": "x", "b.png": "x"})


def test_two_tables_of_one_name_are_listed(find):
    files = {"small/train.csv": CHEXPERT_ROW, "large/train.csv": CHEXPERT_ROW + "\n"}
    with pytest.raises(
        DataError, match=r"2 tables .*: large/train\.csv, small/train\.csv\. Set dat"
    ):
        find(files)


def test_copies_of_one_table_are_one(find):
    files = {"sample/sample_labels.csv": NIH_ROW, "sample/sample/sample_labels.csv.gz": NIH_ROW}
    assert find(files) == ["sample/sample_labels.csv"]


def test_two_tables_with_the_columns_are_listed(find):
    with pytest.raises(DataError, match=r"2 tables that may .*: a\.csv, b\.csv\. Set data\.csv"):
        find({"a.csv": NIH_ROW, "b.csv": CHEXPERT_ROW})


def test_too_many_tables_to_open_are_listed(find):
    with pytest.raises(
        DataError, match=r"21 tables that may describe the images: 00\.csv, .*19\.c"
    ):
        find({f"{number:02d}.csv": "a,b\n" for number in range(21)})


def test_none_names_the_columns_of_the_chosen_data_set(find):
    message = (
        r"No table in .* is of CheXpert\. Found, with their columns: meta\.csv \('Image Index', "
        r"'Finding Labels', 'Patient ID'\)\. Closest is CheXpert: meta\.csv lacks its 'Path', .*"
        r"set data\.csv to its path or URL\. If it is meta\.csv, set data\.dataset to table: it is "
        r"then read as image 'Image Index', patient 'Patient ID', names of findings 'Findin"
    )
    with pytest.raises(DataError, match=message) as caught:
        find({"meta.csv": NIH_ROW}, dataset="chexpert")
    assert "NIH" not in str(caught.value)
