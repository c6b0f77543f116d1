import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score

from cxrmodel.evaluation.evaluate import evaluate
from cxrmodel.evaluation.metrics import Metric
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.evaluation.thresholds import best_threshold


@given(
    arrays(np.uint8, 12, elements=st.integers(0, 1)).filter(np.any),
    arrays(np.float64, 12, elements=st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0])),
)
def test_no_other_observed_threshold_is_better(labels, scores):
    def score(threshold):
        return f1_score(labels, scores >= threshold, zero_division=0)

    chosen = best_threshold(labels, scores).value
    best = max(score(candidate) for candidate in scores)
    assert np.isclose(score(chosen), best)
    higher = scores[scores > chosen]
    assert all(score(candidate) < best - 1e-12 for candidate in higher)


def test_by_hand():
    labels = np.array([0, 1, 0, 1], np.uint8)
    assert best_threshold(labels, np.array([0.1, 0.3, 0.2, 0.9])).value == 0.3


def test_of_equals_the_highest_is_taken_despite_rounding():
    labels = np.array([1, 1, 1, 1, 1, 1] + [0] * 6, np.uint8)
    scores = np.array([0.4] * 3 + [0.2] * 2 + [0.0] + [0.2] * 4 + [0.0] * 2)
    assert best_threshold(labels, scores).value == 0.4  # F1 is 6 / 9 there, 10 / 15 at 0.2


def test_no_positive_in_validation_gives_no_threshold():
    found = best_threshold(np.zeros(3, np.uint8), np.array([0.1, 0.2, 0.3]))
    assert found == Metric(None, "no positive image in validation")


def test_test_images_cannot_move_a_threshold():
    rng = np.random.default_rng(0)

    def sample(count):
        labels = (rng.random((count, 2)) < 0.3).astype(np.uint8)
        return Predictions(("A", "B"), labels, rng.random((count, 2)), np.arange(count))

    validation, test = sample(40), sample(50)
    other = Predictions(("A", "B"), 1 - test.labels, 1 - test.probabilities, test.patients)
    thresholds = [
        [
            entry.metrics["threshold"]
            for entry in evaluate(validation, part, num_resamples=2).per_class.values()
        ]
        for part in (test, other)
    ]
    assert thresholds[0] == thresholds[1]
