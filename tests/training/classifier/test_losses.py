import math

import pytest
import torch

from cxrmodel.training.classifier.losses import (
    asymmetric_loss,
    has_both,
    make_loss,
    mean_average_precision,
    positive_weights,
)

LOSSES = ("bce", "balanced", "asymmetric")
LOG_3 = math.log(3)  # the logit of 3/4


def test_binary_cross_entropy_by_hand():
    loss = make_loss("bce", torch.zeros(1, 2))
    found = loss(torch.tensor([[LOG_3, LOG_3]]), torch.tensor([[1.0, 0.0]]))
    assert found.item() == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2)


def test_balanced_weighs_positives_by_negatives_over_positives():
    train = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    assert positive_weights(train).tolist() == [3, 1]
    found = make_loss("balanced", train)(torch.tensor([[LOG_3, LOG_3]]), torch.ones(1, 2))
    assert found.item() == pytest.approx(-(3 + 1) * math.log(3 / 4) / 2)
    negative = make_loss("balanced", train)(torch.tensor([[LOG_3, LOG_3]]), torch.zeros(1, 2))
    assert negative.item() == pytest.approx(-math.log(1 / 4))


def test_a_class_without_a_positive_train_image_has_a_finite_weight():
    assert positive_weights(torch.tensor([[0.0, 1.0], [0.0, 1.0]])).tolist() == [2, 0]


def test_weights_count_what_is_known():
    nan = math.nan
    labels = torch.tensor([[1.0, nan], [0.0, 1.0], [0.0, 1.0], [nan, 0.0], [nan, nan]])
    assert positive_weights(labels).tolist() == [2, 0.5]


def test_the_asymmetric_loss_by_hand():
    positive = asymmetric_loss(torch.tensor([[LOG_3]]), torch.ones(1, 1))
    assert positive.item() == pytest.approx(-(1 / 4) * math.log(3 / 4))
    negative = asymmetric_loss(torch.tensor([[LOG_3]]), torch.zeros(1, 1))
    assert negative.item() == pytest.approx(-(0.7**4) * math.log(0.3))
    both = asymmetric_loss(torch.tensor([[LOG_3, LOG_3]]), torch.tensor([[1.0, 0.0]]))
    assert both.item() == pytest.approx((positive.item() + negative.item()) / 2)


def test_easy_negatives_below_the_margin_count_nothing():
    logits = torch.tensor([[-3.0]], requires_grad=True)  # a probability of 0.047
    loss = asymmetric_loss(logits, torch.zeros(1, 1))
    loss.backward()
    assert (loss.item(), logits.grad.item()) == (0, 0)


@pytest.mark.parametrize("name", LOSSES)
def test_an_unknown_label_has_exactly_no_gradient_and_does_not_change_the_loss(name):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 14, generator=generator, requires_grad=True)
    labels = (torch.rand(64, 14, generator=generator) < 0.3).float()
    unknown = torch.zeros(64, 14, dtype=torch.bool)
    unknown[:32, 7:] = True  # half of the images come from where seven labels were never given
    loss = make_loss(name, labels.masked_fill(unknown, math.nan))
    found = loss(logits, labels.masked_fill(unknown, math.nan))
    found.backward()
    assert (logits.grad[unknown] == 0).all()
    assert (logits.grad[~unknown] != 0).any(dim=0).all() or name == "asymmetric"
    moved = torch.where(unknown, logits.detach() + 5, logits.detach())
    assert loss(moved, labels.masked_fill(unknown, math.nan)).item() == found.item()
    if name == "bce":
        upper, right = loss(logits[:32, :7], labels[:32, :7]), loss(logits[32:], labels[32:])
        assert found.item() == pytest.approx((upper.item() + 2 * right.item()) / 3)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("size", [-1e30, -1e4, -100.0, 0.0, 100.0, 1e4, 1e30])
def test_huge_logits_give_finite_losses_and_gradients(name, label, size):
    logits = torch.tensor([[size]], requires_grad=True)
    loss = make_loss(name, torch.tensor([[1.0], [0.0]]))(logits, torch.full((1, 1), label))
    loss.backward()
    assert math.isfinite(loss.item())
    assert loss.item() >= 0
    assert math.isfinite(logits.grad.item())


@pytest.mark.parametrize("name", LOSSES)
def test_a_certain_mistake_costs_more_than_a_certain_truth(name):
    loss = make_loss(name, torch.tensor([[1.0], [0.0]]))
    for label in (0.0, 1.0):
        right, wrong = (100.0, -100.0) if label else (-100.0, 100.0)
        truth = torch.full((1, 1), label)
        assert loss(torch.tensor([[right]]), truth) == pytest.approx(0, abs=1e-6)
        assert loss(torch.tensor([[wrong]]), truth) > 1


def test_mean_average_precision_by_hand():
    labels = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1], [1, 0, 0, 1]]).float()
    logits = torch.tensor([[3.0, 1.0, 0.0, 1.0], [2.0, 3.0, 1.0, 2.0], [1.0, 2.0, 2.0, 3.0]])
    # Ranks of the positives: 1 and 3, then 1; no positive in the third class, no negative in the
    # fourth.
    assert has_both(labels).tolist() == [True, True, False, False]
    expected = ((1 / 1 + 2 / 3) / 2 + 1) / 2
    assert mean_average_precision(logits, labels) == pytest.approx(expected)
    more = torch.cat([logits, torch.full((1, 4), 9.0)])
    unknown = torch.cat([labels, torch.full((1, 4), math.nan)])
    assert mean_average_precision(more, unknown) == pytest.approx(expected)


@pytest.mark.parametrize("labels", [torch.zeros(3, 2), torch.ones(3, 2), torch.zeros(0, 2)])
def test_without_both_classes_there_is_no_average_precision(labels):
    assert mean_average_precision(torch.zeros(labels.shape), labels) is None
