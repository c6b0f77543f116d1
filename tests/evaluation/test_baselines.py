import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.errors import SplitError
from cxrmodel.evaluation.baselines import fit_baselines, predict_from_metadata, remember_patients
from cxrmodel.evaluation.resolution import enlarge, shrink

SIZE = 64


class ArrayPixels:
    def __init__(self, names, images):
        self.names, self.images, self.size = names, images, images.shape[-1]

    def rows_of(self, images):
        return np.array([self.names.index(image) for image in images])

    def read(self, rows):
        return self.images[rows]


@pytest.fixture
def stages(tmp_path):
    """120 images whose brightness tells Mass; nobody has Hernia."""
    rng = np.random.default_rng(0)
    count = 120
    names = [f"{row}.png" for row in range(count)]
    labels = (rng.random((count, 14)) < 0.3).astype(np.uint8)
    labels[:, PATHOLOGIES.index("Hernia")] = 0
    bright = 90 + 60 * labels[:, PATHOLOGIES.index("Mass")]
    images = rng.normal(bright[:, None, None], 12, (count, SIZE, SIZE)).clip(0, 255)
    index = pd.DataFrame(
        {
            "image": names,
            "patient_id": names,
            "age": pd.array(rng.integers(1, 90, count), dtype="Int16"),
            "sex": rng.choice(["F", "M"], count),
            "view": rng.choice(["AP", "PA"], count),
            "any_abnormal": labels.any(axis=1),
        }
    )
    index[list(PATHOLOGIES)] = labels
    split = pd.DataFrame({"image": names, "split": ["train"] * 80 + ["val"] * 10 + ["test"] * 30})
    for name in ("split", "index", "one", "two"):
        (tmp_path / name).mkdir()
    index.to_parquet(tmp_path / "index/index.parquet", index=False)
    split.to_parquet(tmp_path / "split/split.parquet", index=False)
    return tmp_path, ArrayPixels(names, images.astype(np.uint8)), labels


def fit(stages, pixels, name):
    directory = stages[0]
    summary = fit_baselines(pixels, directory / "split", directory / "index", directory / name)
    return summary, pd.read_parquet(directory / name / "pca_logistic.parquet")


def test_predicts_every_row_and_learns_what_the_pixels_tell(stages):
    summary, table = fit(stages, stages[1], "one")
    learned = [name for name in PATHOLOGIES if name != "Hernia"]  # which no train image has
    assert list(table.columns) == ["image", "split", *(f"p_{name}" for name in learned)]
    assert len(table) == 120
    assert table.dtypes["p_Mass"] == np.float32
    mass = stages[2][:, PATHOLOGIES.index("Mass")]
    assert ((table["p_Mass"] > 0.5) == mass).mean() > 0.95
    assert summary["num_components"] == 64
    assert json.loads((stages[0] / "one/reconstruction.json").read_text()) == summary


def test_test_and_validation_pixels_do_not_touch_what_train_rows_get(stages):
    pixels = stages[1]
    other = ArrayPixels(pixels.names, pixels.images.copy())
    other.images[80:] = 255 - other.images[80:]
    one, two = fit(stages, pixels, "one")[1], fit(stages, other, "two")[1]
    pd.testing.assert_frame_equal(one[:80], two[:80])
    assert not one[80:].equals(two[80:])


def test_same_input_gives_the_same_bytes(stages):
    fit(stages, stages[1], "one")
    fit(stages, stages[1], "two")
    written = sorted(path for path in (stages[0] / "one").rglob("*.*") if path.is_file())
    assert len(written) == 6
    for name in (path.relative_to(stages[0] / "one") for path in written):
        assert (stages[0] / "one" / name).read_bytes() == (stages[0] / "two" / name).read_bytes()


def test_components_lie_as_latents_do_with_unit_variance_in_train(stages):
    fit(stages, stages[1], "one")
    table = pd.read_parquet(stages[0] / "one/pca_latents/latents.parquet")
    assert list(table.columns[:4]) == ["image", "split", "mu_00", "mu_01"]
    assert len(table.columns) == 66
    in_train = (table["split"] == "train").to_numpy()
    assert table.iloc[in_train, 2:].std(ddof=0).to_numpy() == pytest.approx(1, abs=1e-3)
    assert len(pd.read_parquet(stages[0] / "one/hashes.parquet")["hash"].iloc[0]) == 64


def test_fewer_train_images_than_components(stages):
    split = pd.read_parquet(stages[0] / "split/split.parquet")
    split.loc[5:79, "split"] = "val"
    split.to_parquet(stages[0] / "split/split.parquet", index=False)
    summary, table = fit(stages, stages[1], "one")
    assert summary["num_components"] == 4
    assert table.iloc[:, 2:].notna().all(axis=None)


def test_thumbnails_of_flat_images_have_no_error_and_no_component_is_needed(stages):
    pixels = stages[1]
    flat = ArrayPixels(pixels.names, np.full_like(pixels.images, 51))
    summary = fit(stages, flat, "one")[0]
    assert summary["num_components"] == 0
    for name in ("pca", "thumbnail_16", "thumbnail_32"):
        assert summary[f"{name}_l1"] == pytest.approx(0, abs=1e-6)
        assert summary[f"{name}_ssim"] == pytest.approx(1, abs=1e-3)


def test_without_a_train_image_there_is_nothing_to_fit(stages):
    split = pd.read_parquet(stages[0] / "split/split.parquet").assign(split="test")
    split.to_parquet(stages[0] / "split/split.parquet", index=False)
    with pytest.raises(SplitError, match="has no train image"):
        fit(stages, stages[1], "one")


def test_progress_ends_at_the_total(stages):
    seen = []
    directory = stages[0]
    fit_baselines(
        stages[1], directory / "split", directory / "index", directory / "one", report=seen.append
    )
    assert (seen[-1].stage, seen[-1].done, seen[-1].total) == ("baselines", 200, 200)


def test_shrinking_averages_areas_and_leaves_small_images_alone():
    image = np.array([[[0, 1, 4, 4], [1, 2, 4, 4], [0, 0, 8, 8], [0, 0, 8, 8]]], np.float32)
    assert shrink(image, 2).tolist() == [[[1, 4], [0, 8]]]
    assert shrink(image, 16) is image
    assert enlarge(np.full((1, 2, 2), 0.3, np.float32), 6) == pytest.approx(0.3)


def test_memory_by_hand():
    patients = pd.Series(["a", "a", "a", "b", "c", "a"])
    labels = np.array([[1], [0], [1], [0], [1], [1]], np.uint8)
    in_train = np.array([True, True, False, True, False, False])
    found = remember_patients(patients, labels, in_train)[:, 0]
    prevalence = 1 / 3  # of the train rows 1, 0, 0
    assert found[2] == found[5] == pytest.approx((1 + prevalence) / 3)  # two train images of a
    assert found[4] == pytest.approx(prevalence)  # train does not hold c
    assert found[0] == pytest.approx((0 + prevalence) / 2)  # without its own label
    assert found[1] == pytest.approx((1 + prevalence) / 2)


def test_memory_does_not_know_what_nobody_said():
    patients = pd.Series(["a", "a", "a", "b", "c"])
    labels = np.array([[1, np.nan], [np.nan, 1], [0, 0], [0, 0], [np.nan, np.nan]])
    found = remember_patients(patients, labels, np.array([True, True, False, True, False]))
    assert found[2].tolist() == pytest.approx([(1 + 1 / 2) / 2, (1 + 1 / 2) / 2])
    assert found[1].tolist() == pytest.approx([(1 + 1 / 2) / 2, 1 / 2])
    assert found[4].tolist() == pytest.approx([1 / 2, 1 / 2])


def test_memory_is_worth_nothing_where_patients_are_apart_and_much_where_they_are_not():
    rng = np.random.default_rng(0)
    patients = np.arange(600) // 3
    labels = (rng.random(200) < 0.4).astype(np.uint8)[patients][:, None]
    apart, mixed = patients < 140, rng.random(600) < 0.7
    names = pd.Series(patients.astype(str))
    alone = remember_patients(names, labels, apart)[~apart]
    assert len(np.unique(alone)) == 1
    leaked = remember_patients(names, labels, mixed)[~mixed]
    assert roc_auc_score(labels[~mixed], leaked) > 0.9


def test_metadata_learn_what_they_tell_and_test_rows_teach_nothing():
    rng = np.random.default_rng(1)
    count = 400
    images = pd.DataFrame(
        {
            "age": pd.array(rng.integers(1, 90, count), dtype="Int16"),
            "sex": pd.array(rng.choice(["F", "M"], count), dtype="string"),
            "view": rng.choice(np.array(["AP", "PA", None], dtype=object), count),
        }
    )
    images.loc[::7, ["age", "sex"]] = pd.NA
    labels = np.stack([images["view"] == "AP", rng.random(count) < 0.3], axis=1).astype(np.uint8)
    in_train = np.arange(count) < 250
    found = predict_from_metadata(images, labels, in_train)
    assert roc_auc_score(labels[~in_train, 0], found[~in_train, 0]) == 1
    assert np.isfinite(found).all()
    other = labels.copy()
    other[~in_train] = 1 - other[~in_train]
    assert np.array_equal(predict_from_metadata(images, other, in_train), found)


def test_metadata_that_are_all_missing_give_the_prevalence():
    images = pd.DataFrame(
        {
            "age": pd.array([pd.NA] * 6, dtype="Int16"),
            "sex": pd.array([pd.NA] * 6, dtype="string"),
            "view": [None] * 6,
        }
    )
    labels = np.array([[1, 0]] * 2 + [[0, 1]] + [[0, np.nan]] * 3)
    found = predict_from_metadata(images, labels, np.ones(6, bool))
    assert found == pytest.approx(np.full((6, 2), 1 / 3), abs=1e-3)  # of those that are known
