import pytest

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.chexpert import CHEXPERT
from cxrmodel.data.datasets.registry import AUTO, DATASETS, about, data_set_of

NIH_ROW = "Image Index,Finding Labels,Patient ID\na.png,Mass,1\n"
CHEXPERT_ROW = ",".join(names[0] for names in CHEXPERT.columns.values()) + "\n"


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (NIH_ROW, "nih"),
        (CHEXPERT_ROW, "chexpert"),
        (CHEXPERT_ROW.replace("Path,", ""), "chexpert"),
        ("Image Index\n", "nih"),
        ("", "nih"),
    ],
)
def test_the_columns_tell_which_data_set_it_is(head, name):
    assert data_set_of(AUTO, head.encode(), only_dicom=False).name == name


def test_every_data_set_can_be_chosen_and_nothing_else():
    choices = DataConfig.model_json_schema()["properties"]["dataset"]["enum"]
    assert set(choices) == {AUTO, "table", *DATASETS}
    assert all(about(name).title for name in choices if name != AUTO)
    with pytest.raises(ValueError, match="'auto', 'table', 'nih'"):
        DataConfig(dataset="padchest14")
