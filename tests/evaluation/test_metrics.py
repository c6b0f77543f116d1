import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    recall_score,
    roc_auc_score,
)

from cxrmodel.evaluation import patient_bootstrap
from cxrmodel.evaluation.metrics import (
    METRICS,
    Ranking,
    Ratio,
    auroc,
    average_precision,
    prevalence,
    resample_metrics,
    score_class,
)
from cxrmodel.evaluation.patient_bootstrap import BLOCK, Estimate, PatientBootstrap, draw_patients
from cxrmodel.evaluation.predictions import Predictions

HALF = Estimate(0.5)

# Few distinct scores, so that ties are common.
SCORES = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.50001, 0.9, 1.0])


@st.composite
def labelled_scores(draw):
    size = draw(st.integers(1, 30))
    labels = draw(arrays(np.uint8, size, elements=st.integers(0, 1)))
    return labels, draw(arrays(np.float64, size, elements=SCORES))


@given(labelled_scores())
def test_equal_scikit_learn_where_defined_and_none_with_a_reason_elsewhere(sample):
    labels, scores = sample
    area, precision = auroc(labels, scores), average_precision(labels, scores)
    tuned = score_class(labels, scores, HALF)["f1"]
    if labels.any():
        assert precision.value == average_precision_score(labels, scores)
        assert tuned.value == f1_score(labels, scores >= 0.5, zero_division=0)
    else:
        for metric in (area, precision, tuned):
            assert metric == Estimate.undefined("no positive image in test")
    if labels.all():
        assert area == Estimate.undefined("no negative image in test")
    elif labels.any():
        assert area.value == roc_auc_score(labels, scores)


@given(labelled_scores())
def test_rates_and_errors_equal_scikit_learn_or_say_why_not(sample):
    labels, scores = sample
    found_by_name = score_class(labels, scores, HALF)
    for rate, kind, missing in (("sensitivity", 1, "positive"), ("specificity", 0, "negative")):
        found = found_by_name[rate]
        if (labels == kind).any():
            assert found.value == pytest.approx(recall_score(labels, scores >= 0.5, pos_label=kind))
        else:
            assert found == Estimate.undefined(f"no {missing} image in test")
    expected = brier_score_loss(labels, scores, pos_label=1, labels=[0, 1])
    assert found_by_name["brier"].value == pytest.approx(expected)
    assert prevalence(labels).value == pytest.approx(labels.mean())


def test_by_hand():
    labels = np.array([1, 0, 1, 0], np.uint8)
    scores = np.array([0.9, 0.8, 0.5, 0.1])
    assert auroc(labels, scores).value == 0.75  # 3 of 4 pairs in order
    assert average_precision(labels, scores).value == pytest.approx((1 + 2 / 3) / 2)
    assert score_class(labels, scores, HALF)["f1"].value == pytest.approx(
        0.8
    )  # 0.5 counts as positive


def test_f1_without_a_threshold_is_undefined_and_names_why():
    threshold = Estimate.undefined("no positive image in validation")
    found = score_class(np.array([0, 1], np.uint8), np.array([0.2, 0.7]), threshold)
    assert found["f1"] == Estimate.undefined("no threshold: no positive image in validation")
    assert found["f1_at_0_5"] == Estimate(1.0)


@st.composite
def weighted_scores(draw):
    size = draw(st.integers(2, 25))
    labels = draw(arrays(np.uint8, size, elements=st.integers(0, 1)))
    scores = draw(arrays(np.float64, size, elements=st.sampled_from([0.1, 0.2, 0.5, 0.7])))
    return labels, scores, draw(arrays(np.float64, (3, size), elements=st.integers(0, 4)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(sample=weighted_scores())
@settings(max_examples=200)
def test_weighted_scores_equal_scikit_learn(dtype, sample):
    labels, scores, weights = sample
    areas, precisions = Ranking.of(labels, scores, PatientBootstrap(np.arange(len(labels)))).scores(
        weights.T.astype(dtype)
    )
    for area, precision, weight in zip(areas, precisions, weights, strict=True):
        positives, negatives = weight[labels == 1].sum(), weight[labels == 0].sum()
        if not positives:
            assert np.isnan(area)
            assert np.isnan(precision)
            continue
        expected = average_precision_score(labels, scores, sample_weight=weight)
        assert precision == pytest.approx(expected)
        if negatives:
            assert area == pytest.approx(roc_auc_score(labels, scores, sample_weight=weight))
        else:
            assert np.isnan(area)


def test_resamples_that_fit_float32_have_the_bits_of_float64(monkeypatch):
    rng = np.random.default_rng(0)
    labels, scores = (rng.random(20_000) < 0.5).astype(np.uint8), rng.random(20_000)
    used = []

    def resampled():
        bootstrap = PatientBootstrap(np.arange(20_000) // 3, num_resamples=40)
        ranking = Ranking.of(labels, scores, bootstrap)

        def both(weights):
            used.append(weights.dtype)
            return np.stack(ranking.scores(weights), axis=1)

        return bootstrap.resample_columns(both)

    found = resampled()  # each of 100,000,000 pairs, which float32 could not count
    monkeypatch.setattr(patient_bootstrap, "EXACT", 0)
    assert np.array_equal(found, resampled())
    assert used == [np.float32, np.float32, np.float64, np.float64]


def clustered(rng, num_patients=30, num_images=12):
    """Images of one patient share the label and most of the score; the AUROC is 0.5."""
    patients = np.repeat(np.arange(num_patients), num_images)
    labels = (np.arange(num_patients) % 2)[patients].astype(np.uint8)
    scores = rng.normal(size=num_patients)[patients] + 0.3 * rng.normal(size=len(patients))
    probabilities = 1 / (1 + np.exp(-scores))
    return Predictions(("A",), labels[:, None], probabilities[:, None], patients)


def resample(sample, limit, **settings):
    bootstrap = PatientBootstrap(sample.patients, **settings)
    return resample_metrics(sample, np.array([limit]), bootstrap)


def test_each_resample_equals_scikit_learn_on_the_drawn_images():
    sample = clustered(np.random.default_rng(3), num_patients=8, num_images=3)
    drawn = resample(sample, 0.6, num_resamples=BLOCK + 3, seed=5)
    weights = draw_patients(8, BLOCK + 3, 5)[:, sample.patients]
    labels, scores = sample.labels[:, 0], sample.probabilities[:, 0]
    for row in (0, BLOCK - 1, BLOCK, BLOCK + 2):
        again = np.repeat(np.arange(len(labels)), weights[row].astype(int))
        assert drawn["auroc"][row, 0] == pytest.approx(roc_auc_score(labels[again], scores[again]))
        for found, threshold in (("f1", 0.6), ("f1_at_0_5", 0.5)):
            expected = f1_score(labels[again], scores[again] >= threshold)
            assert drawn[found][row, 0] == pytest.approx(expected)


@pytest.fixture
def sample():
    rng = np.random.default_rng(2)
    patients = np.arange(24) // 3
    labels = (rng.random((24, 1)) < 0.4).astype(np.uint8)
    return Predictions(("A",), labels, rng.random((24, 1)), patients)


def test_each_resampled_rate_equals_scikit_learn_on_the_drawn_images(sample):
    drawn = resample(sample, 0.6, num_resamples=20, seed=5)
    weights = draw_patients(8, 20, 5)[:, sample.patients]
    labels, probabilities = sample.labels[:, 0], sample.probabilities[:, 0]
    for row in range(20):
        again = np.repeat(np.arange(24), weights[row].astype(int))
        called = probabilities[again] >= 0.6
        for found, kind in (("sensitivity", 1), ("specificity", 0)):
            expected = recall_score(labels[again], called, pos_label=kind)
            assert drawn[found][row, 0] == pytest.approx(expected)
        expected = brier_score_loss(labels[again], probabilities[again])
        assert drawn["brier"][row, 0] == pytest.approx(expected)


def test_rates_by_hand():
    labels, probabilities = np.array([1, 1, 0, 0, 0], np.uint8), np.array([0.6, 0.5, 0.6, 0.1, 0])
    found = score_class(labels, probabilities, Estimate(0.6))
    assert found["sensitivity"].value == 0.5  # 0.6 counts as positive
    assert found["specificity"].value == pytest.approx(2 / 3)
    assert found["brier"].value == pytest.approx((0.16 + 0.25 + 0.36 + 0.01) / 5)


def test_undefined_rates_name_why():
    ones, half = np.ones(2, np.uint8), np.full(2, 0.5)
    negative, positive = score_class(1 - ones, half, HALF), score_class(ones, half, HALF)
    empty = score_class(ones[:0], half[:0], HALF)
    assert negative["sensitivity"].reason == "no positive image in test"
    assert positive["specificity"].reason == "no negative image in test"
    assert empty["specificity"].reason == empty["brier"].reason == "no image to judge by"
    none = Estimate.undefined("why")
    assert score_class(ones, half, none)["sensitivity"].reason == "no threshold: why"
    assert score_class(1 - ones, half, none)["specificity"].reason == "no threshold: why"


def test_a_ratio_whose_denominator_is_0_is_undefined():
    none_called = Ratio("", lambda labels, *_: (0.0 * labels, 0.0 * labels), "image", False)
    labels, probabilities = np.array([0, 1], np.uint8), np.array([0.2, 0.7])
    assert none_called.score(labels, probabilities, HALF).reason == "no image to judge by"


def test_rates_of_a_class_without_a_threshold_are_undefined_in_every_resample(sample):
    drawn = resample(sample, np.nan, num_resamples=4)
    for name in ("f1", "sensitivity", "specificity"):
        assert np.isnan(drawn[name]).all()
    for name in ("auroc", "f1_at_0_5", "brier"):
        assert not np.isnan(drawn[name]).any()


def test_every_metric_is_scored_and_resampled(sample):
    found = score_class(sample.labels[:, 0], sample.probabilities[:, 0], HALF)
    drawn = resample(sample, 0.5, num_resamples=BLOCK + 1)
    assert list(found) == list(drawn) == list(METRICS)
    assert {values.shape for values in drawn.values()} == {(BLOCK + 1, 1)}
