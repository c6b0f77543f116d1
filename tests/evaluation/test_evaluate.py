import numpy as np
import pytest

from cxrmodel.evaluation.evaluate import compare, evaluate
from cxrmodel.evaluation.predictions import Predictions


def sample(rng, count=80, skill=1.0, labels=None):
    if labels is None:
        labels = (rng.random((count, 3)) < [0.5, 0.3, 0.2]).astype(np.uint8)
    logits = rng.normal(size=labels.shape) + skill * labels
    probabilities = 1 / (1 + np.exp(-logits))
    return Predictions(("A", "B", "C"), labels, probabilities, np.arange(len(labels)) // 2)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_class_without_a_positive_is_left_out_of_the_mean_and_counted(rng):
    test = sample(rng)
    test.labels[:, 2] = 0
    found = evaluate(sample(rng), test, num_resamples=20)
    values = [found.per_class[name].metrics["auroc"].value for name in "ABC"]
    assert values[2] is None
    assert found.per_class["C"].metrics["auroc"].reason == "no positive image in test"
    assert "auroc" not in found.per_class["C"].intervals
    assert found.macro["auroc"].value == pytest.approx(np.mean(values[:2]))
    assert found.num_classes["auroc"] == 2


def test_a_class_without_a_positive_in_validation_loses_only_its_tuned_f1(rng):
    validation = sample(rng)
    validation.labels[:, 1] = 0
    found = evaluate(validation, sample(rng), num_resamples=20)
    assert found.num_classes == {
        "auroc": 3,
        "average_precision": 3,
        "f1": 2,
        "f1_at_0_5": 3,
        "sensitivity": 2,
        "specificity": 2,
        "brier": 3,
    }
    reason = found.per_class["B"].metrics["f1"].reason
    assert reason == "no threshold: no positive image in validation"


def test_no_test_image_leaves_everything_undefined(rng):
    empty = Predictions(
        ("A", "B", "C"), np.zeros((0, 3), np.uint8), np.zeros((0, 3)), np.zeros(0, np.int64)
    )
    found = evaluate(sample(rng), empty, num_resamples=3)
    assert all(metric.value is None and metric.reason for metric in found.macro.values())
    assert found.intervals == {}


def test_one_test_patient_has_scores_but_no_interval(rng):
    test = sample(rng)
    alone = Predictions(test.pathologies, test.labels, test.probabilities, 0 * test.patients)
    found = evaluate(sample(rng), alone, num_resamples=3)
    assert found.macro["auroc"].value is not None
    assert found.intervals == {}


def test_all_positive_baseline_by_hand(rng):
    test, validation = sample(rng), sample(rng)
    found = evaluate(validation.with_constant(1), test.with_constant(1), num_resamples=5)
    shares = test.labels.mean(axis=0)
    expected = np.mean(2 * shares / (1 + shares))
    assert found.macro["auroc"].value == 0.5
    assert found.macro["average_precision"].value == pytest.approx(shares.mean())
    assert found.macro["f1"].value == pytest.approx(expected)
    assert found.macro["f1_at_0_5"].value == pytest.approx(expected)


def test_comparison_is_paired(rng):
    test, validation = sample(rng), sample(rng)
    skilled = evaluate(validation, test, num_resamples=200)
    same = compare(skilled, skilled, "auroc")
    assert (same.value, same.interval, same.verdict) == (0, (0, 0), "unclear")
    blind = evaluate(validation.with_constant(1), test.with_constant(1), num_resamples=200)
    better = compare(skilled, blind, "auroc")
    assert better.verdict == "higher"
    assert better.value == pytest.approx(skilled.macro["auroc"].value - 0.5)
    assert compare(blind, skilled, "auroc").verdict == "lower"
