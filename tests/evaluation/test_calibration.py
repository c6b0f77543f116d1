import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, logit

from cxrmodel.evaluation.calibration import (
    Calibrator,
    centred,
    evaluate_calibration,
    fit_calibrator,
    measure_reliability,
    resample_errors,
)
from cxrmodel.evaluation.patient_bootstrap import Estimate, PatientBootstrap
from cxrmodel.evaluation.predictions import Predictions


def honest(rng, count, num_classes=3):
    """Labels drawn with exactly the predicted probabilities; two images per patient."""
    probabilities = expit(rng.normal(-1, 1.5, (count, num_classes)))
    labels = (rng.random(probabilities.shape) < probabilities).astype(np.uint8)
    names = tuple("ABCDE"[:num_classes])
    return Predictions(names, labels, probabilities, np.arange(count) // 2)


def calibrate(validation, test, num_resamples):
    bootstrap = PatientBootstrap(test.patients, num_resamples=num_resamples)
    return evaluate_calibration(validation, test, bootstrap)


def overconfident(sample):
    return sample.with_probabilities(expit(3 * logit(sample.probabilities) + 1))


def test_planted_miscalibration_is_found_and_honest_probabilities_raise_nothing():
    rng = np.random.default_rng(0)
    validation, test = honest(rng, 600), honest(rng, 800)
    clean = calibrate(validation, test, num_resamples=200)
    assert clean.gain.verdict != "lower"  # "higher": scaling what needs none adds noise
    planted = calibrate(overconfident(validation), overconfident(test), num_resamples=200)
    assert planted.gain.verdict == "lower"
    assert planted.macro["ece_before"].value > 0.1
    assert planted.macro["ece_before"].interval[0] > planted.macro["ece_after"].interval[1]
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
    found = calibrate(sample, empty, num_resamples=3)
    assert found.gain.value is None
    assert found.macro["ece_after"].reason == "undefined for every class"
    assert all(score.interval is None for score in found.macro.values())


def test_every_error_lies_in_its_interval_and_one_patient_has_none():
    sample = honest(np.random.default_rng(2), 60)
    found = calibrate(sample, sample, num_resamples=50)
    for entry in found.per_class.values():
        low, high = entry.metrics["ece_before"].interval
        assert 0 <= low <= entry.before.error.value <= high
    low, high = found.macro["ece_after"].interval
    assert low < found.macro["ece_after"].value < high
    alone = Predictions(
        sample.pathologies, sample.labels, sample.probabilities, 0 * sample.patients
    )
    of_one = calibrate(sample, alone, num_resamples=3)
    for scores in (of_one.macro, of_one.per_class["A"].metrics):
        assert {score.interval for score in scores.values()} == {None}


def test_error_by_hand():
    probabilities = np.repeat([0.2, 0.6], [20, 30])
    labels = np.array([1] * 5 + [0] * 15 + [1] * 30, np.uint8)
    curve = measure_reliability(labels, probabilities)
    assert curve.predicted == pytest.approx([0.2, 0.6])
    assert curve.observed == pytest.approx([0.25, 1.0])
    assert curve.counts.tolist() == [20, 30]
    assert curve.error.value == pytest.approx(0.4 * 0.05 + 0.6 * 0.4)


@pytest.mark.parametrize(("count", "num_bins"), [(7, 1), (62, 3), (400, 10)])
def test_bins_hold_at_least_twenty_images(count, num_bins):
    curve = measure_reliability(np.ones(count, np.uint8), np.linspace(0, 1, count))
    assert len(curve.counts) == num_bins


@given(
    arrays(np.uint8, 40, elements=st.integers(0, 1)),
    arrays(np.float64, 40, elements=st.floats(0, 1, width=16)),
)
def test_bins_hold_every_image_once_and_keep_both_means(labels, probabilities):
    curve = measure_reliability(labels, probabilities)
    assert curve.counts.sum() == 40
    assert np.average(curve.predicted, weights=curve.counts) == pytest.approx(probabilities.mean())
    assert np.average(curve.observed, weights=curve.counts) == pytest.approx(labels.mean())
    assert 0 <= curve.error.value <= 1


def test_nothing_to_bin_is_undefined():
    assert measure_reliability(np.zeros(0, np.uint8), np.zeros(0)).error.value is None


def test_each_resample_equals_the_error_of_the_drawn_images():
    rng = np.random.default_rng(0)
    probabilities = np.repeat([[0.1, 0.3], [0.6, 0.7]], 30, axis=0)  # two bins, however drawn
    labels = (rng.random(probabilities.shape) < 0.4).astype(np.uint8)
    test = Predictions(("A", "B"), labels, probabilities, np.arange(60) % 20)
    bootstrap = PatientBootstrap(test.patients, num_resamples=6, seed=1)
    found = resample_errors(test, bootstrap)
    weights = bootstrap.resample(lambda drawn: drawn)[:, test.patients].astype(int)
    for row in range(6):
        again = np.repeat(np.arange(60), weights[row])
        for column in range(2):
            drawn = measure_reliability(labels[again, column], probabilities[again, column])
            assert found[row, column] == pytest.approx(drawn.error.value)


@pytest.mark.parametrize(("value", "expected"), [(40.0, (0, 87.5)), (60.0, (12.5, 107.5))])
def test_a_centred_interval_by_hand(value, expected):
    error = Estimate(value, (2.5, 97.5), resamples=np.arange(101.0))
    assert centred(error).interval == pytest.approx(expected)
    assert centred(Estimate(value)) == Estimate(value)


def test_intervals_cover_the_expected_error_where_percentiles_alone_miss_the_measured_one():
    rng = np.random.default_rng(3)

    def draw():
        probabilities = expit(rng.normal(-2, 1, (400, 1)))
        labels = (rng.random((400, 1)) < probabilities).astype(np.uint8)
        return Predictions(("A",), labels, probabilities, np.arange(400) // 2)

    def error(sample):
        return measure_reliability(sample.labels[:, 0], sample.probabilities[:, 0]).error.value

    expected = np.mean([error(draw()) for _ in range(300)])  # above 0 though all is honest
    assert expected > 0.02
    covered = below = 0
    for _ in range(100):
        sample = draw()
        bootstrap = PatientBootstrap(sample.patients, num_resamples=200)
        resampled = resample_errors(sample, bootstrap)[:, 0]
        low, high = centred(bootstrap.estimate(Estimate(error(sample)), resampled)).interval
        covered += low <= expected <= high
        below += error(sample) < np.percentile(resampled, 2.5)
    assert covered >= 93
    assert below >= 3
