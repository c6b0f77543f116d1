import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from cxrmodel.config import ClassifierConfig
from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.errors import DamagedArtifactError, DataError, DivergedError
from cxrmodel.training.classifier.fit import fit_classifier, load_classifier

pytestmark = pytest.mark.gpu

NUM_IMAGES, LATENT_DIM = 240, 6
LEARNED, LEFT_OUT = PATHOLOGIES[:LATENT_DIM], PATHOLOGIES[LATENT_DIM:]
PARTS = ("train",) * 7 + ("val",) * 3 + ("test",) * 2


@pytest.fixture
def latents(tmp_path):
    """Latents whose sign in dimension k is the label of pathology k; the others nobody has."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(NUM_IMAGES, LATENT_DIM)).astype("float32")
    table = pd.DataFrame(values, columns=[f"mu_{dim:02d}" for dim in range(LATENT_DIM)])
    table.insert(0, "image", [f"{row:04d}.png" for row in range(NUM_IMAGES)])
    table.insert(1, "split", [PARTS[row % len(PARTS)] for row in range(NUM_IMAGES)])
    for dim in range(LATENT_DIM):
        table[f"logvar_{dim:02d}"] = np.float32(0)
    directory = tmp_path / "latents"
    directory.mkdir()
    table.to_parquet(directory / "latents.parquet", index=False)
    return directory


@pytest.fixture
def index(tmp_path, latents, labels):
    table = pd.read_parquet(latents / "latents.parquet")
    values = np.zeros((NUM_IMAGES, len(PATHOLOGIES)))
    values[:, :LATENT_DIM] = table.filter(like="mu_") > 0
    order = np.random.default_rng(1).permutation(NUM_IMAGES)  # the join is by image, not by row
    return labels(tmp_path / "index", table["image"].to_numpy()[order].tolist(), values[order])


@pytest.fixture
def fit(tmp_path, latents, index, device):
    def run(name="classifier", report=lambda progress: None, **settings):
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        config = ClassifierConfig(**settings)
        summary = fit_classifier(config, latents, index, directory, device=device, report=report)
        return directory, summary

    return run


def change(latents, **columns):
    path = latents / "latents.parquet"
    pd.read_parquet(path).assign(**columns).to_parquet(path, index=False)


def test_it_learns_what_can_be_learned(fit, index):
    directory, _ = fit(lr=3e-3)
    predictions = pd.read_parquet(directory / "predictions.parquet")
    truth = pd.read_parquet(index / "index.parquet").set_index("image").loc[predictions["image"]]
    test = (predictions["split"] == "test").to_numpy()
    for pathology in LEARNED:
        right = (predictions[f"p_{pathology}"] > 0.5).to_numpy() == truth[pathology].to_numpy()
        assert right[test].mean() > 0.8


def test_a_run_publishes_weights_config_history_and_predictions(fit, latents):
    directory, summary = fit(epochs=3, weights="last")
    assert sorted(path.name for path in directory.iterdir()) == [
        "classifier.safetensors",
        "config.json",
        "history.parquet",
        "predictions.parquet",
    ]
    history = pd.read_parquet(directory / "history.parquet")
    assert history.columns.tolist() == ["epoch", "train_loss", "val_loss", "val_map"]
    assert history["epoch"].tolist() == [1, 2, 3]
    predictions = pd.read_parquet(directory / "predictions.parquet")
    assert predictions.columns.tolist() == [
        "image",
        "split",
        *(f"p_{pathology}" for pathology in LEARNED),
    ]
    source = pd.read_parquet(latents / "latents.parquet")
    assert (predictions[["image", "split"]] == source[["image", "split"]]).all(axis=None)
    assert set(predictions.dtypes[2:]) == {np.dtype("float32")}
    config = json.loads((directory / "config.json").read_text())
    assert config["architecture"] == {"latent_dim": LATENT_DIM, "num_labels": 6}
    assert config["labels"] == list(LEARNED)
    assert config["labels_left_out"] == dict.fromkeys(LEFT_OUT, "no positive image in train")
    assert summary["num_images"] == NUM_IMAGES
    assert summary["val_loss"] == history["val_loss"].iloc[-1]


def test_without_a_label_nothing_is_trained_and_nothing_predicted(fit, index, caplog):
    path = index / "index.parquet"
    table = pd.read_parquet(path).drop(columns=list(PATHOLOGIES))
    table.assign(any_abnormal=pd.array([None] * NUM_IMAGES, "Int8")).to_parquet(path)
    directory, summary = fit(loss="balanced")
    assert "nothing to classify" in caplog.text
    assert (summary["num_labels"], summary["epochs"], summary["published_epoch"]) == (0, 0, 0)
    predictions = pd.read_parquet(directory / "predictions.parquet")
    assert predictions.columns.tolist() == ["image", "split"]
    assert len(predictions) == NUM_IMAGES
    history = pd.read_parquet(directory / "history.parquet")
    assert history.columns.tolist() == ["epoch", "train_loss", "val_loss", "val_map"]
    assert load_classifier(directory)(torch.zeros(2, LATENT_DIM)).shape == (2, 0)


def test_two_runs_are_equal_to_the_byte(fit):
    first, _ = fit("first", epochs=2)
    torch.rand(3)
    second, _ = fit("second", epochs=2)
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_the_process_generator_is_left_alone(fit):
    before = torch.get_rng_state()
    fit(epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("loss", ["bce", "balanced", "asymmetric"])
def test_the_loaded_network_gives_the_predictions(fit, latents, loss):
    directory, _ = fit(epochs=2, standardize=True, loss=loss)
    mu = pd.read_parquet(latents / "latents.parquet").filter(like="mu_").to_numpy().copy()
    probabilities = load_classifier(directory)(torch.from_numpy(mu)).sigmoid()
    stored = pd.read_parquet(directory / "predictions.parquet").filter(like="p_").to_numpy()
    np.testing.assert_allclose(stored, probabilities, rtol=1e-5)


@pytest.mark.parametrize("part", ["test", "val"])
def test_standardisation_is_fitted_on_train_alone(fit, latents, part):
    before = load_classifier(fit("before", epochs=1, standardize=True)[0])
    table = pd.read_parquet(latents / "latents.parquet")
    change(latents, mu_00=table["mu_00"].where(table["split"] != part, 1e3))
    after = load_classifier(fit("after", epochs=1, standardize=True)[0])
    assert torch.equal(before.mean, after.mean)
    assert torch.equal(before.scale, after.scale)
    train = table.loc[table["split"] == "train", "mu_00"]
    assert after.mean[0].item() == pytest.approx(train.mean(), abs=1e-6)
    assert after.scale[0].item() == pytest.approx(train.std(ddof=0), rel=1e-6)


def test_standardisation_makes_the_scale_of_latents_not_matter(fit, latents):
    small, _ = fit("small", epochs=2, standardize=True)
    table = pd.read_parquet(latents / "latents.parquet")
    change(latents, **{name: table[name] * 4 + 8 for name in table.filter(like="mu_")})
    large, _ = fit("large", epochs=2, standardize=True)
    ours, theirs = (
        pd.read_parquet(directory / "predictions.parquet").filter(like="p_")
        for directory in (small, large)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)


def test_best_is_the_epoch_of_the_lowest_validation_loss(fit):
    settings = {"lr": 0.03, "batch_size": 8}  # enough to overfit
    best, summary = fit("best", epochs=12, weights="best", **settings)
    losses = pd.read_parquet(best / "history.parquet")["val_loss"]
    epoch = int(losses.idxmin()) + 1
    assert summary["published_epoch"] == epoch < 12
    short, _ = fit("short", epochs=epoch, weights="last", **settings)
    last, _ = fit("last", epochs=12, weights="last", **settings)
    weights = [(path / "classifier.safetensors").read_bytes() for path in (best, short, last)]
    assert weights[0] == weights[1] != weights[2]


def test_the_validation_loss_by_hand(fit, latents, index):
    directory, summary = fit(epochs=2, weights="last")
    predictions = pd.read_parquet(directory / "predictions.parquet").query("split == 'val'")
    truth = pd.read_parquet(index / "index.parquet").set_index("image").loc[predictions["image"]]
    p, y = predictions.filter(like="p_").to_numpy(), truth[list(LEARNED)].to_numpy("float64")
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert summary["val_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["balanced", "asymmetric"])
def test_a_weighted_loss_publishes_calibrated_probabilities(fit, index, loss):
    directory, _ = fit(loss=loss, weights="best_map", lr=3e-3)
    scaling = json.loads((directory / "config.json").read_text())["platt_scaling"]
    assert [len(scaling[name]) for name in ("slope", "intercept")] == [6, 6]
    validation = pd.read_parquet(directory / "predictions.parquet").query("split == 'val'")
    truth = pd.read_parquet(index / "index.parquet").set_index("image").loc[validation["image"]]
    means = validation.filter(like="p_").mean().to_numpy()
    shares = truth[list(LEARNED)].to_numpy("float64").mean(axis=0)
    assert means == pytest.approx(shares, abs=0.02)


def test_cross_entropy_is_published_as_it_is(fit):
    directory, _ = fit(epochs=1)
    assert json.loads((directory / "config.json").read_text())["platt_scaling"] is None


def test_without_validation_images_there_is_no_best(fit, latents):
    change(latents, split="train")
    with pytest.raises(
        ValueError, match=r"classifier\.weights is 'best'.*no labelled validation image"
    ):
        fit(epochs=1)
    directory, summary = fit(epochs=1, weights="last")
    assert summary["val_loss"] is None
    assert pd.read_parquet(directory / "history.parquet")["val_loss"].isna().all()


def test_without_train_images_there_is_nothing_to_do(fit, latents):
    change(latents, split="test")
    with pytest.raises(DataError, match="no labelled train image"):
        fit()


def test_an_image_without_labels_is_named(fit, index):
    table = pd.read_parquet(index / "index.parquet")
    table[table["image"] != "0007.png"].to_parquet(index / "index.parquet", index=False)
    with pytest.raises(DataError, match=r"1 images of .* the first is 0007\.png"):
        fit()


def test_divergence_is_named(fit):
    lr = r"in epoch 1 of 20.*Lower classifier\.lr \(now 1e\+30\)"
    with pytest.raises(DivergedError, match=rf"{lr}, or set classifier\.standardize\.$"):
        fit(lr=1e30)
    with pytest.raises(DivergedError, match=rf"{lr}\.$"):
        fit(lr=1e30, standardize=True)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_latents_that_are_not_finite_are_no_divergence(fit, latents, value):
    values = np.zeros(NUM_IMAGES, np.float32)
    values[7:9] = value
    change(latents, mu_00=values)
    with pytest.raises(DamagedArtifactError, match=r"of 2 of 240 images; the first is 0007\.png"):
        fit()


@pytest.mark.parametrize("missing", ["split", "mu_00"])
def test_latents_without_a_column_are_refused(fit, latents, missing):
    path = latents / "latents.parquet"
    pd.read_parquet(path).drop(columns=missing).to_parquet(path, index=False)
    with pytest.raises(DamagedArtifactError, match=rf"latents\.parquet has no column {missing}"):
        fit()


def test_a_truncated_table_is_refused(fit, latents):
    path = latents / "latents.parquet"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DamagedArtifactError, match=r"latents\.parquet cannot be read"):
        fit()


def test_a_classifier_of_another_number_of_labels_is_refused(fit):
    directory, _ = fit(epochs=1)
    config = json.loads((directory / "config.json").read_text())
    config["architecture"]["num_labels"] = 5
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(DamagedArtifactError, match=r"float32 \(6, 256\) instead of .* \(5, 256\)"):
        load_classifier(directory)


def test_progress_is_reported(fit):
    told = []
    fit(epochs=2, report=told.append)
    assert (told[-1].stage, told[-1].done, told[-1].total, told[-1].unit) == (
        "classifier",
        2,
        2,
        "epochs",
    )
    assert {"train_loss", "val_loss"} <= set(told[-1].metrics)


def test_missing_weights_are_an_error(fit):
    directory, _ = fit(epochs=1)
    (directory / "classifier.safetensors").unlink()
    with pytest.raises(DamagedArtifactError, match="cannot be read as weights"):
        load_classifier(directory)
