import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit

from cxrmodel.evaluation.bootstrap import draw_patients
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.evaluation.reliability import (
    centred_interval,
    measure_reliability,
    resample_errors,
)


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
    found = resample_errors(test, num_resamples=6, seed=1)
    weights = np.concatenate(list(draw_patients(20, 6, 1)))[:, test.patients].astype(int)
    for row in range(6):
        again = np.repeat(np.arange(60), weights[row])
        for column in range(2):
            drawn = measure_reliability(labels[again, column], probabilities[again, column])
            assert found[row, column] == pytest.approx(drawn.error.value)


def test_a_centred_interval_by_hand():
    assert centred_interval(np.arange(101.0), 40.0) == pytest.approx((0, 87.5))
    assert centred_interval(np.arange(101.0), 60.0) == pytest.approx((12.5, 107.5))
    assert centred_interval(np.array([np.nan]), 1.0) is None


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
        resampled = resample_errors(sample, num_resamples=200, seed=0)[:, 0]
        low, high = centred_interval(resampled, error(sample))
        covered += low <= expected <= high
        below += error(sample) < np.percentile(resampled, 2.5)
    assert covered >= 93
    assert below >= 3
