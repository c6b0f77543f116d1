"""The training loop, on latents in memory."""

import numpy as np
import pandas as pd
import pytest
import torch

from cxrmodel.config import ClassifierConfig
from cxrmodel.models.classifier import Classifier
from cxrmodel.training.classifier.labelled_latents import LabelledLatents
from cxrmodel.training.classifier.loop import train_classifier
from cxrmodel.training.randomness import Stream, epoch_order, seed_of

NUM_TRAIN, NUM_VAL, LATENT_DIM = 120, 60, 4
NAMES = ("A", "B", "C")
CPU = torch.device("cpu")
OVERFIT = {"lr": 0.03, "batch_size": 16, "epochs": 30}


@pytest.fixture
def data():
    """Three noisy classes; the last latent is always 0."""
    rng = np.random.default_rng(5)
    latents = rng.normal(size=(NUM_TRAIN + NUM_VAL, LATENT_DIM)).astype("float32")
    labels = (latents[:, :3] + rng.normal(0, 2, (len(latents), 3)) > 1).astype("float32")
    latents[:, -1] = 0
    rows = pd.DataFrame({"split": ["train"] * NUM_TRAIN + ["val"] * NUM_VAL})
    return LabelledLatents(rows, torch.from_numpy(latents), torch.from_numpy(labels), NAMES)


@pytest.fixture
def train(data):
    def run(report=lambda progress: None, **settings):
        trained = train_classifier(ClassifierConfig(**settings), data, CPU, report)
        return trained.model, trained.epoch, pd.DataFrame(trained.history)

    return run


def test_labels_that_nobody_gave_teach_nothing(data):
    """A mixed set: of half of the images the last label was never given."""
    data.labels[::2, 2] = torch.nan
    settings = ClassifierConfig(epochs=2, weights="last")

    def last_layer(changed):
        trained = train_classifier(settings, changed, CPU, lambda progress: None)
        return trained.model.layers[-1].weight

    partly = last_layer(data)
    assert torch.isfinite(partly).all()
    data.labels[:, 2] = torch.nan
    never = last_layer(data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(42, Stream.WEIGHTS))
        initial = Classifier(LATENT_DIM, 3).layers[-1].weight
    assert torch.equal(never[2], initial[2])
    assert not torch.equal(partly[2], initial[2])


def test_images_without_any_label_take_no_part(data, train):
    model, _, history = train(epochs=2, weights="last")
    unlabelled = LabelledLatents(
        pd.concat([data.rows, pd.DataFrame({"split": ["train", "val"]})], ignore_index=True),
        torch.cat([data.latents, torch.full((2, LATENT_DIM), 9.0)]),
        torch.cat([data.labels, torch.full((2, 3), torch.nan)]),
        data.names,
    )
    settings = ClassifierConfig(epochs=2, weights="last")
    again = train_classifier(settings, unlabelled, CPU, lambda progress: None)
    assert torch.equal(weights(again.model), weights(model))
    assert again.history == history.to_dict("records")


def weights(model):
    return torch.cat([parameter.flatten() for parameter in model.parameters()])


def average_precision(labels, scores):
    """Mean over the positives, from the highest score downwards, of the precision there."""
    sorted_labels = labels[np.argsort(-scores)]
    return (np.cumsum(sorted_labels) / np.arange(1, len(labels) + 1))[sorted_labels == 1].mean()


def test_the_defaults_are_adam_and_binary_cross_entropy_to_the_bit(train, data):
    model, _, _ = train(epochs=3, weights="last")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(42, Stream.WEIGHTS))
        expected = Classifier(LATENT_DIM, 3)
    optimizer = torch.optim.Adam(expected.parameters(), lr=1e-3, fused=True)
    latents, labels = data.part("train")
    for epoch in range(3):
        for batch in torch.from_numpy(epoch_order(42, epoch, NUM_TRAIN)).split(64):
            optimizer.zero_grad()
            torch.nn.BCEWithLogitsLoss()(expected(latents[batch]), labels[batch]).backward()
            optimizer.step()
    assert torch.equal(weights(model), weights(expected))


def test_weight_decay_by_hand(train):
    def of_the_empty_latent(**settings):
        model = train(epochs=3, batch_size=NUM_TRAIN, lr=0.01, weights="last", **settings)[0]
        return model.layers[0].weight[:, -1]

    initial, decayed = of_the_empty_latent(), of_the_empty_latent(weight_decay=5)
    torch.testing.assert_close(decayed, initial * (1 - 0.01 * 5) ** 3)  # it has no gradient


@pytest.mark.parametrize("loss", ["bce", "balanced", "asymmetric"])
def test_every_loss_falls_on_train(train, loss):
    losses = train(loss=loss, **OVERFIT)[2]["train_loss"]
    assert losses.iloc[-1] < 0.6 * losses.iloc[0]


def test_the_history_has_the_mean_average_precision(train, data):
    model, epoch, history = train(epochs=4, weights="best_map")
    latents, labels = data.part("val")
    scores = model(latents).detach().numpy()
    expected = np.mean([average_precision(labels[:, k].numpy(), scores[:, k]) for k in range(3)])
    assert history["val_map"][epoch - 1] == pytest.approx(expected)


def test_best_map_is_the_epoch_of_the_highest_mean_average_precision(train):
    best, epoch, history = train(weights="best_map", **OVERFIT)
    assert epoch == int(history["val_map"].idxmax()) + 1
    assert epoch != int(history["val_loss"].idxmin()) + 1
    last, _, _ = train(**OVERFIT | {"epochs": epoch, "weights": "last"})
    assert torch.equal(weights(best), weights(last))


@pytest.mark.parametrize(
    ("chosen", "column", "sign"), [("best", "val_loss", -1), ("best_map", "val_map", 1)]
)
@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_when_patience_runs_out(train, chosen, column, sign, patience):
    _, _, whole = train(weights=chosen, **OVERFIT)
    scores = (sign * whole[column]).to_numpy()
    best, stop = next(
        (best, epoch)
        for epoch in range(len(scores))
        if epoch - (best := int(scores[: epoch + 1].argmax())) == patience
    )
    told = []
    model, published, history = train(told.append, weights=chosen, patience=patience, **OVERFIT)
    assert (published, len(history)) == (best + 1, stop + 1)
    assert len(history) < len(whole)
    pd.testing.assert_frame_equal(history, whole[: len(history)])
    assert torch.equal(
        weights(model), weights(train(**OVERFIT | {"epochs": published, "weights": "last"})[0])
    )
    assert told[-1].done == told[-1].total == len(history)
    assert told[-1].metrics["val_map"] == history["val_map"].iloc[-1]


def test_patience_that_never_ends_trains_every_epoch(train):
    told = []
    _, _, history = train(told.append, epochs=3, patience=3)
    assert len(history) == told[-1].done == told[-1].total == 3


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_without_both_classes_in_validation_there_is_no_best_map(train, data, label):
    data.labels[NUM_TRAIN:] = label
    with pytest.raises(ValueError, match=r"'best_map', and no label has both .* or 'last', or"):
        train(weights="best_map")
    history = train(epochs=2)[2]
    assert history["val_map"].isna().all()
    assert history["val_loss"].notna().all()


@pytest.mark.parametrize("loss", ["balanced", "asymmetric"])
def test_without_validation_images_nothing_can_be_recalibrated(train, data, loss):
    data.rows["split"] = "train"
    with pytest.raises(
        ValueError, match=rf"loss is '{loss}', and .* no labelled validation image .* 'bce'"
    ):
        train(loss=loss, weights="last")
