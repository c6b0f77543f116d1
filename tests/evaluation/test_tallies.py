import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, recall_score

from cxrmodel.evaluation.bootstrap import draw_patients, resample_patients
from cxrmodel.evaluation.metrics import Metric, brier, sensitivity, specificity
from cxrmodel.evaluation.predictions import Predictions

THRESHOLD = Metric(0.6)


@pytest.fixture
def sample():
    rng = np.random.default_rng(2)
    patients = np.arange(24) // 3
    labels = (rng.random((24, 1)) < 0.4).astype(np.uint8)
    return Predictions(("A",), labels, rng.random((24, 1)), patients)


def test_each_resample_equals_scikit_learn_on_the_drawn_images(sample):
    drawn = resample_patients(sample, np.array([0.6]), num_resamples=20, seed=5)
    weights = np.concatenate(list(draw_patients(8, 20, 5)))[:, sample.patients]
    labels, probabilities = sample.labels[:, 0], sample.probabilities[:, 0]
    for row in range(20):
        again = np.repeat(np.arange(24), weights[row].astype(int))
        called = probabilities[again] >= 0.6
        for found, kind in ((drawn.sensitivity, 1), (drawn.specificity, 0)):
            expected = recall_score(labels[again], called, pos_label=kind)
            assert found[row, 0] == pytest.approx(expected)
        expected = brier_score_loss(labels[again], probabilities[again])
        assert drawn.brier[row, 0] == pytest.approx(expected)


def test_scores_by_hand():
    labels, probabilities = np.array([1, 1, 0, 0, 0], np.uint8), np.array([0.6, 0.5, 0.6, 0.1, 0])
    assert sensitivity(labels, probabilities, THRESHOLD).value == 0.5  # 0.6 counts as positive
    assert specificity(labels, probabilities, THRESHOLD).value == pytest.approx(2 / 3)
    assert brier(labels, probabilities).value == pytest.approx((0.16 + 0.25 + 0.36 + 0.01) / 5)


def test_undefined_rates_name_why():
    ones, half, none = np.ones(2, np.uint8), np.full(2, 0.5), Metric.undefined("why")
    assert sensitivity(1 - ones, half, THRESHOLD).reason == "no positive image in test"
    assert specificity(ones, half, THRESHOLD).reason == "no negative image in test"
    assert specificity(ones[:0], half[:0], THRESHOLD).reason == "no image to judge by"
    assert sensitivity(ones, half, none).reason == "no threshold: why"
    assert specificity(1 - ones, half, none).reason == "no threshold: why"
    assert brier(ones[:0], half[:0]).reason == "no image to judge by"


def test_rates_of_a_class_without_a_threshold_are_undefined_in_every_resample(sample):
    drawn = resample_patients(sample, np.array([np.nan]), num_resamples=4, seed=0)
    assert np.isnan(drawn.sensitivity).all()
    assert np.isnan(drawn.specificity).all()
    assert not np.isnan(drawn.brier).any()
