import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score

from cxrmodel.evaluation.evaluate import best_threshold, evaluate
from cxrmodel.evaluation.patient_bootstrap import Estimate, PatientBootstrap
from cxrmodel.evaluation.predictions import Predictions


def sample(rng, count=80, skill=1.0, labels=None):
    if labels is None:
        labels = (rng.random((count, 3)) < [0.5, 0.3, 0.2]).astype(np.uint8)
    logits = rng.normal(size=labels.shape) + skill * labels
    probabilities = 1 / (1 + np.exp(-logits))
    return Predictions(("A", "B", "C"), labels, probabilities, np.arange(len(labels)) // 2)


def judge(validation, test, num_resamples=20):
    return evaluate(validation, test, PatientBootstrap(test.patients, num_resamples=num_resamples))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_what_is_unknown_changes_no_score(rng):
    """A class whose label is known of half of the images scores as on these images alone."""
    validation, test = sample(rng), sample(rng)
    known = np.arange(80) % 4 < 2  # whole patients
    mixed = [
        Predictions(part.pathologies, part.labels.astype("float64"), part.probabilities.copy(),
                    part.patients)
        for part in (validation, test)
    ]  # fmt: skip
    for part in mixed:
        part.labels[~known, 1] = np.nan
        part.probabilities[~known, 1] = rng.random(40)
    found = judge(*mixed).per_class
    halves = [
        Predictions(part.pathologies, part.labels[known], part.probabilities[known],
                    np.unique(part.patients[known], return_inverse=True)[1])
        for part in (validation, test)
    ]  # fmt: skip
    alone, whole = judge(*halves).per_class, judge(validation, test).per_class
    assert found["B"].num_labelled == 40
    assert found["B"].num_positive == alone["B"].num_positive
    assert found["B"].num_positive_patients == alone["B"].num_positive_patients
    for metric, estimate in found["B"].metrics.items():
        assert estimate.value == alone["B"].metrics[metric].value, metric
    assert found["A"] == whole["A"]
    assert found["C"] == whole["C"]


def test_intervals_of_a_label_vary_with_the_patients_that_have_it(rng):
    test = sample(rng)
    labels = test.labels.astype("float64")
    labels[2:, 0] = np.nan  # of one patient
    one = judge(sample(rng), Predictions(test.pathologies, labels, test.probabilities,
                                         test.patients))  # fmt: skip
    assert one.per_class["A"].metrics["brier"].interval is None
    assert one.per_class["B"].metrics["brier"].interval is not None


def test_a_class_without_a_positive_is_left_out_of_the_mean_and_counted(rng):
    test = sample(rng)
    test.labels[:, 2] = 0
    found = judge(sample(rng), test, num_resamples=20)
    values = [found.per_class[name].metrics["auroc"].value for name in "ABC"]
    assert values[2] is None
    assert found.per_class["C"].metrics["auroc"].reason == "no positive image in test"
    assert found.per_class["C"].metrics["auroc"].interval is None
    assert found.macro["auroc"].value == pytest.approx(np.mean(values[:2]))
    assert found.num_classes["auroc"] == 2


def test_a_class_without_a_positive_in_validation_loses_only_its_tuned_f1(rng):
    validation = sample(rng)
    validation.labels[:, 1] = 0
    found = judge(validation, sample(rng), num_resamples=20)
    expected = {
        "auroc": 3,
        "average_precision": 3,
        "f1": 2,
        "f1_at_0_5": 3,
        "sensitivity": 2,
        "specificity": 2,
        "brier": 3,
    }
    assert expected.items() <= found.num_classes.items()
    reason = found.per_class["B"].metrics["f1"].reason
    assert reason == "no threshold: no positive image in validation"


def test_no_test_image_leaves_everything_undefined(rng):
    empty = Predictions(
        ("A", "B", "C"), np.zeros((0, 3), np.uint8), np.zeros((0, 3)), np.zeros(0, np.int64)
    )
    found = judge(sample(rng), empty, num_resamples=3)
    assert all(score.value is None and score.reason for score in found.macro.values())
    assert all(score.interval is None for score in found.macro.values())


def test_one_test_patient_has_scores_but_no_interval(rng):
    test = sample(rng)
    alone = Predictions(test.pathologies, test.labels, test.probabilities, 0 * test.patients)
    found = judge(sample(rng), alone, num_resamples=3)
    assert found.macro["auroc"].value is not None
    assert all(score.interval is None for score in found.macro.values())


def test_all_positive_baseline_by_hand(rng):
    test, validation = sample(rng), sample(rng)
    found = judge(validation.with_constant(1), test.with_constant(1), num_resamples=5)
    shares = test.labels.mean(axis=0)
    expected = np.mean(2 * shares / (1 + shares))
    assert found.macro["auroc"].value == 0.5
    assert found.macro["average_precision"].value == pytest.approx(shares.mean())
    assert found.macro["f1"].value == pytest.approx(expected)
    assert found.macro["f1_at_0_5"].value == pytest.approx(expected)


def test_two_models_are_compared_in_pairs(rng):
    test, validation = sample(rng), sample(rng)
    bootstrap = PatientBootstrap(test.patients, num_resamples=200)
    skilled = evaluate(validation, test, bootstrap).macro["auroc"]
    same = bootstrap.difference(skilled, skilled)
    assert (same.value, same.interval, same.verdict) == (0, (0, 0), "unclear")
    blind = evaluate(validation.with_constant(1), test.with_constant(1), bootstrap).macro["auroc"]
    better = bootstrap.difference(skilled, blind)
    assert better.verdict == "higher"
    assert better.value == pytest.approx(skilled.value - 0.5)
    assert bootstrap.difference(blind, skilled).verdict == "lower"


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


def test_a_threshold_by_hand():
    labels = np.array([0, 1, 0, 1], np.uint8)
    assert best_threshold(labels, np.array([0.1, 0.3, 0.2, 0.9])).value == 0.3


def test_of_equals_the_highest_is_taken_despite_rounding():
    labels = np.array([1, 1, 1, 1, 1, 1] + [0] * 6, np.uint8)
    scores = np.array([0.4] * 3 + [0.2] * 2 + [0.0] + [0.2] * 4 + [0.0] * 2)
    assert best_threshold(labels, scores).value == 0.4  # F1 is 6 / 9 there, 10 / 15 at 0.2


def test_no_positive_in_validation_gives_no_threshold():
    found = best_threshold(np.zeros(3, np.uint8), np.array([0.1, 0.2, 0.3]))
    assert found == Estimate.undefined("no positive image in validation")


def test_test_images_cannot_move_a_threshold(rng):
    validation, test = sample(rng, 40), sample(rng, 50)
    other = Predictions(test.pathologies, 1 - test.labels, 1 - test.probabilities, test.patients)
    thresholds = [
        [
            entry.metrics["threshold"]
            for entry in judge(validation, part, num_resamples=2).per_class.values()
        ]
        for part in (test, other)
    ]
    assert thresholds[0] == thresholds[1]
