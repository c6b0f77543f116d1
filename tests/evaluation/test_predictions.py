import pandas as pd
import pytest

from cxrmodel.errors import DamagedArtifactError
from cxrmodel.evaluation.predictions import read_predictions


@pytest.fixture
def index(tmp_path):
    path = tmp_path / "index.parquet"
    pd.DataFrame(
        {
            "image": ["a", "b", "c"],
            "patient_id": ["7", "3", "7"],
            "Mass": [1, 0, 1],
            "Edema": [0, 0, 1],
        }
    ).to_parquet(path)
    return path


def write(tmp_path, images, probabilities, parts):
    path = tmp_path / "predictions.parquet"
    pd.DataFrame(
        {"image": images, "split": parts, "p_Edema": 0.25, "p_Mass": probabilities}
    ).to_parquet(path)
    return path


def test_joins_by_image_whatever_the_order(tmp_path, index):
    path = write(tmp_path, ["c", "b", "a"], [0.9, 0.1, 0.8], ["test", "test", "test"])
    parts = read_predictions(path, index)
    test = parts["test"]
    assert test.pathologies == ("Edema", "Mass")
    assert test.labels.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert test.probabilities[:, 1].tolist() == [0.9, 0.1, 0.8]
    assert test.patients.tolist() == [1, 0, 1]
    assert parts["train"].num_images == parts["val"].num_images == 0


def test_an_unknown_image_is_named(tmp_path, index):
    path = write(tmp_path, ["a", "z"], [0.5, 0.5], ["test", "test"])
    with pytest.raises(DamagedArtifactError, match=r"predicts z, which is not in .*index\.parquet"):
        read_predictions(path, index)


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan")])
def test_what_is_no_probability_is_refused(tmp_path, index, value):
    path = write(tmp_path, ["a"], [value], ["test"])
    with pytest.raises(DamagedArtifactError, match="not a probability"):
        read_predictions(path, index)


def test_an_order_is_kept_and_a_missing_image_is_named(tmp_path, index):
    path = write(tmp_path, ["c", "b", "a"], [0.9, 0.1, 0.8], ["test", "test", "test"])
    ordered = read_predictions(path, index, ["a", "b", "c"])["test"]
    assert ordered.probabilities[:, 1].tolist() == [0.8, 0.1, 0.9]
    with pytest.raises(DamagedArtifactError, match="does not predict d, which the split holds"):
        read_predictions(path, index, ["a", "d"])
