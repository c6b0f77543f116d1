"""Test images that a model was trained on do not judge it."""

import shutil

import numpy as np
import pandas as pd
import pytest

from cxrmodel.errors import DataError
from cxrmodel.inference.bundle import write_checksums
from cxrmodel.inference.held_out import (
    NAMED_TWICE,
    NOT_FOUND,
    NOT_READ,
    SAME_PATIENT,
    SAME_PIXELS,
    read_held_out,
)


@pytest.fixture(scope="module")
def index(run) -> pd.DataFrame:
    """The index with the part of each image."""
    index = pd.read_parquet(run.stage("index") / "index.parquet")
    return index.merge(pd.read_parquet(run.stage("split") / "split.parquet"), on="image")


@pytest.fixture
def table_of(run, model, tmp_path):
    """Write a table of labels as a user does, and return its place."""

    def write(rows) -> str:
        path = tmp_path / "labels.csv"
        rows[["image", "patient_id", *model.labels]].to_csv(path, index=False)
        return str(path)

    return write


def test_the_test_images_of_a_run_are_all_held_out(run, model, index):
    table = str(run.stage("report") / "test_predictions.parquet")
    images, left_out = read_held_out(model, model, table, str(run.root))
    expected = pd.read_parquet(table)
    assert left_out == {}
    assert images.labels == model.labels
    for label, truth, told in zip(images.labels, images.truth.T, images.champion.T, strict=True):
        np.testing.assert_array_equal(truth, expected[f"y_{label}"])
        np.testing.assert_allclose(told, expected[f"p_{label}"], atol=1e-6)
    np.testing.assert_array_equal(images.champion, images.challenger)
    patients = pd.factorize(expected["patient_id"])[0]
    np.testing.assert_array_equal(images.patients, patients)


def test_images_and_patients_of_train_are_left_out(run, model, index, table_of):
    test = index[index["split"] == "test"][:20]
    train = index[index["split"] == "train"][:6]
    train = train.assign(patient_id=[*train["patient_id"][:3], "new1", "new2", "new3"])
    images, left_out = read_held_out(
        model, model, table_of(pd.concat([test, train])), str(run.root)
    )
    assert len(images.truth) == 20
    assert left_out == {SAME_PIXELS: 6}
    others = test[:4].assign(patient_id=train["patient_id"].to_numpy()[0])
    images, left_out = read_held_out(
        model, model, table_of(pd.concat([others, test[4:]])), str(run.root)
    )
    assert (len(images.truth), left_out) == (16, {SAME_PATIENT: 4})
    with pytest.raises(DataError, match=r"No image of .* is left to judge by \(pixels of a train"):
        read_held_out(model, model, table_of(train), str(run.root))


def test_the_other_models_training_counts_too(run, bundle, model, index, table_of, tmp_path):
    from cxrmodel.inference.predictor import load  # noqa: PLC0415

    other = shutil.copytree(bundle, tmp_path / "other")
    train = pd.read_parquet(other / "train.parquet")
    test = index[index["split"] == "test"]
    checksums = pd.read_parquet(run.stage("images") / "images.parquet").set_index("image")["crc32"]
    train.loc[0, "crc32"] = checksums[test["image"].iloc[0]]
    train.to_parquet(other / "train.parquet", index=False)
    write_checksums(other)
    for pair in ((model, load(other, device="cpu")), (load(other, device="cpu"), model)):
        images, left_out = read_held_out(*pair, table_of(test), str(run.root))
        assert (len(images.truth), left_out) == (len(test) - 1, {SAME_PIXELS: 1})


def test_what_cannot_be_read_is_counted(run, model, index, table_of, tmp_path):
    test = index[index["split"] == "test"][:5]
    folder = tmp_path / "images"
    folder.mkdir()
    for name in test["image"][:4]:
        shutil.copy(run.root / "images" / name, folder)
    (folder / test["image"].iloc[0]).write_bytes(b"no image")
    again = test[1:2].assign(image=f"images/{test['image'].iloc[1]}")
    images, left_out = read_held_out(model, model, table_of(pd.concat([test, again])))
    assert len(images.truth) == 3
    assert left_out == {NOT_READ: 1, NOT_FOUND: 1, NAMED_TWICE: 1}
