"""A new objective is one class and one entry; everything else follows the names of its terms."""

import numpy as np
import pandas as pd
import pytest
import torch

from cxrmodel.config import VAEConfig
from cxrmodel.report.figures.curves import draw_training_curves
from cxrmodel.report.figures.theme import LIGHT, drawing
from cxrmodel.training.vae.l1_kl import L1KL
from cxrmodel.training.vae.objective import OBJECTIVES, make_objective

pytestmark = pytest.mark.gpu

CONFIG = VAEConfig(objective="toy", epochs=2, batch_size=4, latent_dim=4, lr=1e-3)


class Interruption(BaseException):
    pass


class Toy(L1KL):
    """Also the mean square error, with a weight that grows with the steps."""

    terms = (*L1KL.terms, "square")

    def measure(self, output, image):
        square = (output.reconstruction - image).square().mean()
        return {**super().measure(output, image), "square": square}

    def weights(self, step):
        return {**super().weights(step), "square_weight": 0.5 * (step + 1)}

    def loss(self, terms, weights):
        return super().loss(terms, weights) + weights["square_weight"] * terms["square"]


class SquareAlone:
    """Neither L1 nor KL among its terms, and not linear."""

    terms = ("square",)

    def __init__(self, config):
        pass

    def measure(self, output, image):
        return {"square": (output.reconstruction - image).square().mean()}

    def weights(self, step):
        return {}

    def loss(self, terms, weights):
        return terms["square"].sqrt()


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "toy", Toy)
    monkeypatch.setitem(OBJECTIVES, "square", SquareAlone)


def history_of(directory):
    return pd.read_parquet(directory / "history.parquet")


def test_a_further_term_is_in_history_and_validation(fit):
    told = []
    directory, summary = fit(config=CONFIG, report=told.append)
    history = history_of(directory)
    first, last = (list(history.columns).index(name) for name in ("train_l1", "train_loss"))
    names = ["train_l1", "train_kl_nats", "train_square", "train_loss"]
    assert list(history.columns[first : last + 1]) == names
    assert history["square_weight"].tolist() == [2.0, 4.0]  # of the fourth and the eighth step
    for part in ("train", "val"):
        terms = [history[f"{part}_{name}"] for name in ("l1", "kl_nats", "square")]
        expected = terms[0] + 1e-3 * terms[1] / 4 + history["square_weight"] * terms[2]
        np.testing.assert_allclose(history[f"{part}_loss"], expected)
    assert (history["val_square"] < history["val_l1"]).all()  # errors are below 1
    assert summary["val_square"] == history["val_square"].iloc[-1]
    assert {"square", "square_weight", "val_square"} <= set(told[-1].metrics)


def test_validation_averages_a_further_term_over_images(fit):
    """Three validation images in batches of two: the second batch has one image."""
    histories = [
        history_of(fit(str(size), CONFIG.model_copy(update={"batch_size": size}), checkpoints=c)[0])
        for size, c in ((14, "a"), (2, "b"))
    ]
    assert histories[0]["val_square"].iloc[0] != histories[1]["val_square"].iloc[0]
    restarted = fit("again", CONFIG.model_copy(update={"batch_size": 14}), checkpoints="a")[0]
    assert history_of(restarted)["val_square"].tolist() == histories[0]["val_square"].tolist()


@pytest.mark.parametrize("step", [3, 4, 6])
def test_interrupted_and_resumed_equals_unbroken(fit, report_every_step, step):
    def interrupt(progress):
        if progress.done >= step:
            raise Interruption

    unbroken, _ = fit("unbroken", CONFIG, checkpoints="a")
    with pytest.raises(Interruption):
        fit("broken", CONFIG, checkpoints="b", report=interrupt)
    resumed, _ = fit("broken", CONFIG, checkpoints="b")
    for name in ("vae.safetensors", "history.parquet"):
        assert (resumed / name).read_bytes() == (unbroken / name).read_bytes()


def test_a_checkpoint_of_another_objective_is_not_used(fit, caplog):
    fit("first", CONFIG, checkpoints="shared")
    second, _ = fit(
        "second", CONFIG.model_copy(update={"objective": "l1_kl"}), checkpoints="shared"
    )
    assert "other settings or data" in caplog.text
    assert "train_square" not in history_of(second)


def test_a_checkpoint_of_an_objective_with_other_terms_is_not_used(fit, caplog, monkeypatch):
    fit("first", CONFIG, checkpoints="shared")
    monkeypatch.setitem(OBJECTIVES, "toy", L1KL)  # as in another version of this package
    fit("second", CONFIG, checkpoints="shared")
    assert "other settings or data" in caplog.text


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


@pytest.mark.parametrize(
    ("name", "added"),
    [("l1_kl", []), ("toy", ["square", "loss"]), ("square", ["square", "loss"])],
)
def test_the_curves_show_every_term(fit, name, added):
    history = history_of(fit(config=CONFIG.model_copy(update={"objective": name}))[0])
    classifier = pd.DataFrame({"epoch": [1, 2], "train_loss": [2.0, 1.0], "val_loss": [2.0, 1.5]})
    with drawing(LIGHT):
        figure = draw_training_curves(history, classifier, LIGHT)
    assert titles(figure)[6:] == [f"Autoencoder: {term}" for term in added]
    for axes, term in zip(figure.axes[6:], added, strict=True):
        drawn = [line.get_ydata().tolist() for line in axes.get_lines()]
        assert drawn == [history[f"{part}_{term}"].tolist() for part in ("train", "val")]


def test_an_objective_without_l1_and_kl_is_measured_by_both(fit):
    directory, _ = fit(config=CONFIG.model_copy(update={"objective": "square"}))
    history = history_of(directory)
    assert "train_l1" not in history
    assert history[["val_l1", "val_kl_nats"]].notna().all(axis=None)
    np.testing.assert_allclose(history["val_loss"], history["val_square"] ** 0.5)


def test_without_validation_images_the_columns_are_the_same(fit, split):
    full, _ = fit("full", CONFIG, checkpoints="a")
    table = pd.read_parquet(split / "split.parquet")
    table[table["split"] == "train"].to_parquet(split / "split.parquet", index=False)
    without, _ = fit("without", CONFIG, checkpoints="b")
    assert list(history_of(without).columns) == list(history_of(full).columns)
    assert history_of(without)["val_square"].isna().all()


def test_an_unknown_objective_lists_the_known_ones():
    config = VAEConfig(objective="l2_kl")
    with pytest.raises(ValueError, match=r"vae\.objective: 'l2_kl' is not one of l1_kl, .*did you"):
        make_objective(config)


def test_the_default_is_the_notebooks(device):
    assert isinstance(make_objective(VAEConfig()), L1KL)
    assert torch.device(device)
