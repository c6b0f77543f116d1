import numpy as np
import pytest
from scipy.special import expit, logit

from cxrmodel.evaluation.calibration import (
    Calibrator,
    evaluate_calibration,
    fit_calibrator,
)
from cxrmodel.evaluation.predictions import Predictions


def honest(rng, count, num_classes=3):
    """Labels drawn with exactly the predicted probabilities; two images per patient."""
    probabilities = expit(rng.normal(-1, 1.5, (count, num_classes)))
    labels = (rng.random(probabilities.shape) < probabilities).astype(np.uint8)
    names = tuple("ABCDE"[:num_classes])
    return Predictions(names, labels, probabilities, np.arange(count) // 2)


def overconfident(sample):
    return sample.with_probabilities(expit(3 * logit(sample.probabilities) + 1))


def test_planted_miscalibration_is_found_and_honest_probabilities_raise_nothing():
    rng = np.random.default_rng(0)
    validation, test = honest(rng, 600), honest(rng, 800)
    clean = evaluate_calibration(validation, test, num_resamples=200)
    assert clean.gain.verdict != "lower"  # "higher": scaling what needs none adds noise
    planted = evaluate_calibration(
        overconfident(validation), overconfident(test), num_resamples=200
    )
    assert planted.gain.verdict == "lower"
    assert planted.macro["ece_before"].value > 0.1
    assert planted.intervals["ece_before"][0] > planted.intervals["ece_after"][1]
    assert planted.macro["ece_after"].value < 0.05
    assert planted.macro["brier_after"].value == pytest.approx(
        clean.macro["brier_after"].value, abs=0.005
    )


def test_scaling_undoes_what_distorted_the_logits():
    sample = honest(np.random.default_rng(1), 20_000, num_classes=1)
    found = fit_calibrator(sample.labels[:, 0], overconfident(sample).probabilities[:, 0])
    assert found.slope == pytest.approx(1 / 3, abs=0.02)
    assert found.intercept == pytest.approx(-1 / 3, abs=0.05)


def test_platts_targets_keep_a_perfect_separation_finite():
    labels, probabilities = np.array([0, 0, 1], np.uint8), np.array([0.1, 0.2, 0.9])
    scaled = fit_calibrator(labels, probabilities).apply(probabilities)
    assert scaled[2] == pytest.approx(2 / 3, abs=0.05)  # (1 + 1) / (1 + 2)
    assert scaled[:2] == pytest.approx(1 / 4, abs=0.05)  # 1 / (2 + 2)


@pytest.mark.parametrize(("label", "kind"), [(0, "positive"), (1, "negative")])
def test_one_class_in_validation_cannot_calibrate_and_says_why(label, kind):
    found = fit_calibrator(np.full(3, label, np.uint8), np.array([0.1, 0.5, 1.0]))
    assert found == Calibrator(None, None, f"no {kind} image in validation")
    assert found.apply(np.array([0.0, 1.0])).tolist() == [0, 1]


def test_a_calibrator_never_turns_the_order_round():
    labels, probabilities = np.array([1, 1, 0, 0], np.uint8), np.array([0.1, 0.2, 0.8, 0.9])
    found = fit_calibrator(labels, probabilities)
    assert found.apply(probabilities) == pytest.approx(0.5)


def test_without_test_images_there_is_no_gain():
    sample = honest(np.random.default_rng(0), 20)
    empty = Predictions(
        sample.pathologies, np.zeros((0, 3), np.uint8), np.zeros((0, 3)), np.zeros(0, np.int64)
    )
    found = evaluate_calibration(sample, empty, num_resamples=3)
    assert found.gain.value is None
    assert found.macro["ece_after"].reason == "undefined for every class"
    assert found.intervals == {}


def test_every_error_lies_in_its_interval_and_one_patient_has_none():
    sample = honest(np.random.default_rng(2), 60)
    found = evaluate_calibration(sample, sample, num_resamples=50)
    for entry in found.per_class.values():
        low, high = entry.intervals["ece_before"]
        assert 0 <= low <= entry.before.error.value <= high
    low, high = found.intervals["ece_after"]
    assert low < found.macro["ece_after"].value < high
    alone = Predictions(
        sample.pathologies, sample.labels, sample.probabilities, 0 * sample.patients
    )
    of_one = evaluate_calibration(sample, alone, num_resamples=3)
    assert of_one.intervals == of_one.per_class["A"].intervals == {}
