import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

from cxrmodel.evaluation.metrics import auroc
from cxrmodel.models.classifier import Classifier
from cxrmodel.models.platt_scaling import fit_platt_scaling
from cxrmodel.training.classifier.calibration import MIN_SLOPE, fit_scaling, recalibrate
from cxrmodel.training.classifier.labelled_latents import LabelledLatents


def honest(count, *, sign=1.0, seed=0):
    """Logits and labels drawn with exactly their probabilities, or with the order turned round."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-2, 1.5, count)
    return logits, (rng.random(count) < expit(sign * logits)).astype(np.uint8)


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0, 1e6])
def test_a_distortion_of_the_logits_is_undone_at_any_scale(factor):
    logits, labels = honest(20_000)
    slope, intercept = fit_scaling(labels, logits * factor + 3 * factor, 0.1)
    assert slope * factor == pytest.approx(1, abs=0.06)
    assert intercept == pytest.approx(-3, abs=0.15)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_in_validation_only_shifts_to_the_share_of_train(label):
    logits, _ = honest(50)
    slope, intercept = fit_scaling(np.full(50, label, np.uint8), logits, 0.02)
    assert slope == 1
    assert expit(logits + intercept).mean() == pytest.approx(0.02)


def test_unknown_labels_do_not_move_the_scaling():
    logits, labels = honest(400)
    more = np.concatenate([logits, np.full(50, 30.0)])
    unknown = np.concatenate([labels.astype("float32"), np.full(50, np.nan, "float32")])
    assert fit_scaling(unknown, more, 0.1) == fit_scaling(labels, logits, 0.1)
    assert fit_scaling(np.full(50, np.nan), more[:50], 0.02)[0] == 1


def test_a_single_validation_image_is_shifted():
    assert fit_scaling(np.zeros(1, np.uint8), np.array([7.0]), 0.5) == (1, pytest.approx(-7))


def test_a_rank_worse_than_chance_is_kept_and_hardly_believed():
    logits, labels = honest(500, sign=-1.0)
    slope, intercept = fit_scaling(labels, logits, 0.25)
    probabilities = expit(slope * logits + intercept)
    assert slope * logits.std() == pytest.approx(MIN_SLOPE)
    assert probabilities.mean() == pytest.approx(0.25)
    assert probabilities.std() < 0.005
    assert auroc(labels, probabilities) == auroc(labels, logits)


@pytest.mark.parametrize("label", [0, 1])
def test_equal_logits_of_all_images_become_the_share(label):
    labels = np.array([label, 1 - label, 0], np.uint8)
    slope, intercept = fit_scaling(labels, np.full(3, 2.0), 0.2)
    assert expit(slope * 2 + intercept) == pytest.approx(0.2, abs=0.2)
    assert slope > 0


@pytest.fixture
def network():
    """One latent, four classes; the logits are the latent times 3, -3, 3 and 3, plus 5."""
    model = Classifier(1, 4).eval().requires_grad_(False)
    for layer in (model.layers[0], model.layers[2], model.layers[4]):
        layer.weight.zero_()
        layer.bias.zero_()
    model.layers[0].weight[:2] = torch.tensor([[1.0], [-1.0]])
    model.layers[2].weight[:2, :2] = torch.eye(2)
    signs = torch.tensor([1.0, -1.0, 1.0, 1.0])
    model.layers[4].weight[:, 0], model.layers[4].weight[:, 1] = 3 * signs, -3 * signs
    model.layers[4].bias.fill_(5)
    return model


@pytest.fixture
def data():
    """Half train, half validation; the third class has no positive, the fourth one in train."""
    logits, labels = honest(2000)
    truth = np.zeros((2000, 4), np.float32)
    truth[:, :2] = labels[:, None]
    truth[0, 3] = 1
    rows = pd.DataFrame({"image": np.arange(2000).astype(str), "split": ["train", "val"] * 1000})
    return LabelledLatents(
        rows,
        torch.from_numpy(logits[:, None].astype(np.float32)),
        torch.from_numpy(truth),
        tuple("ABCD"),
    )


def test_recalibration_keeps_the_order_and_corrects_the_probabilities(network, data):
    before = network(data.latents)
    scaling = recalibrate(network, data)
    after = network(data.latents).sigmoid()
    for k in range(4):
        assert scaling["slope"][k] > 0
        assert (after[before[:, k].argsort(), k].diff() >= 0).all()
    truth = expit(data.latents[:, 0].numpy())
    assert np.abs(after[:, 0].numpy() - truth).mean() < 0.02
    assert np.abs(before.sigmoid()[:, 0].numpy() - truth).mean() > 0.2
    validation = after[1::2].mean(dim=0)
    assert validation[2].item() == pytest.approx(1 / 1002, rel=1e-3)  # 0 of 1000 train images
    assert validation[3].item() == pytest.approx(2 / 1002, rel=1e-3)  # 1 of 1000


def test_what_is_recalibrated_needs_no_further_scaling(network, data):
    recalibrate(network, data)
    latents, labels = data.part("val")
    logits = network(latents)[:, 0].double().numpy()
    found = fit_platt_scaling(labels[:, 0].numpy().astype(np.uint8), logits)
    assert found == (pytest.approx(1, abs=5e-3), pytest.approx(0, abs=5e-3))


def test_train_images_do_not_move_a_class_that_validation_can_tell(network, data):
    rows, latents = data.rows, data.latents.clone()
    latents[::2] += 100
    twin = Classifier(1, 4)
    twin.load_state_dict(network.state_dict())
    changed = LabelledLatents(rows, latents, data.labels, data.names)
    assert recalibrate(network, data) == recalibrate(twin, changed)
