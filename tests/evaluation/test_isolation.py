"""No test row reaches a threshold, calibrator, scaler, chosen epoch or baseline."""

import json

import numpy as np
import pandas as pd
import pytest

from cxrmodel.config import ClassifierConfig
from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.evaluation.baselines import predict_from_metadata, remember_patients
from cxrmodel.evaluation.calibration import fit_calibrators
from cxrmodel.evaluation.evaluate import fit_thresholds
from cxrmodel.evaluation.predictions import read_predictions
from cxrmodel.training.classifier.fit import fit_classifier

SETTINGS = {"epochs": 6, "batch_size": 16, "standardize": True}
CONFIGS = (
    ClassifierConfig(weights="best", **SETTINGS),
    ClassifierConfig(weights="best_map", loss="balanced", patience=2, **SETTINGS),
)


def write_stages(directory, *, other_test):
    """Latents and labels of 90 images; `other_test` changes every value of the test rows."""
    rng = np.random.default_rng(4)
    names = [f"{row}.png" for row in range(90)]
    split = np.array(["train"] * 50 + ["val"] * 20 + ["test"] * 20)
    mu = rng.normal(size=(90, 3)).astype(np.float32)
    labels = (rng.random((90, 14)) < 0.4).astype(np.uint8)
    index = pd.DataFrame(
        {
            "image": names,
            "patient_id": [str(row // 2) for row in range(90)],
            "age": pd.array(rng.integers(1, 90, 90), dtype="Int16"),
            "sex": rng.choice(["F", "M"], 90),
            "view": rng.choice(["AP", "PA"], 90),
            "any_abnormal": labels.any(axis=1).astype(np.uint8),
        }
    )
    if other_test:
        mu[split == "test"] = mu[split == "test"] * 5 + 100
        labels[split == "test"] = 1 - labels[split == "test"]
        index.loc[split == "test", "age"] = 3
        index.loc[split == "test", "sex"] = "F"
    index[list(PATHOLOGIES)] = labels
    latents = pd.DataFrame({"image": names, "split": split})
    latents[["mu_00", "mu_01", "mu_02"]] = mu
    directory.mkdir()
    latents.to_parquet(directory / "latents.parquet", index=False)
    index.to_parquet(directory / "index.parquet", index=False)
    return index, labels, split


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda config: config.loss)
def twins(request, tmp_path_factory):
    """The same train and validation rows twice, with different test rows."""
    directory = tmp_path_factory.mktemp("twins")
    found = []
    for name, other_test in (("one", False), ("two", True)):
        folder = directory / name
        stages = write_stages(folder, other_test=other_test)
        fit_classifier(request.param, folder, folder, folder, device="cpu")
        predictions = read_predictions(folder / "predictions.parquet", folder / "index.parquet")
        found.append((folder, stages, predictions))
    return found


def test_scaler_weights_and_chosen_epoch_are_alike(twins):
    one, two = (folder for folder, _, _ in twins)
    for name in ("classifier.safetensors", "config.json", "history.parquet"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert "published_epoch" in json.loads((one / "config.json").read_text())


def test_thresholds_and_calibrators_are_alike_though_test_is_not(twins):
    one, two = (predictions for _, _, predictions in twins)
    assert not np.array_equal(one["test"].probabilities, two["test"].probabilities)
    assert fit_thresholds(one["val"]) == fit_thresholds(two["val"])
    assert fit_calibrators(one["val"]) == fit_calibrators(two["val"])


def test_baselines_without_pixels_are_alike_outside_test(twins):
    found = []
    for _, (index, labels, split) in ((folder, stages) for folder, stages, _ in twins):
        in_train = split == "train"
        found.append(
            (
                predict_from_metadata(index, labels, in_train)[split != "test"],
                remember_patients(index["patient_id"], labels, in_train),
            )
        )
    for one, two in zip(*found, strict=True):
        assert np.array_equal(one, two)
