import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    recall_score,
    roc_auc_score,
)

from cxrmodel.evaluation.metrics import (
    Metric,
    auroc,
    average_precision,
    brier,
    f1,
    macro,
    prevalence,
    sensitivity,
    specificity,
)

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
    tuned = f1(labels, scores, Metric(0.5))
    if labels.any():
        assert precision.value == average_precision_score(labels, scores)
        assert tuned.value == f1_score(labels, scores >= 0.5, zero_division=0)
    else:
        for metric in (area, precision, tuned):
            assert metric == Metric(None, "no positive image in test")
    if labels.all():
        assert area == Metric(None, "no negative image in test")
    elif labels.any():
        assert area.value == roc_auc_score(labels, scores)


@given(labelled_scores())
def test_rates_and_errors_equal_scikit_learn_or_say_why_not(sample):
    labels, scores = sample
    for rate, kind, missing in ((sensitivity, 1, "positive"), (specificity, 0, "negative")):
        found = rate(labels, scores, Metric(0.5))
        if (labels == kind).any():
            assert found.value == pytest.approx(recall_score(labels, scores >= 0.5, pos_label=kind))
        else:
            assert found == Metric(None, f"no {missing} image in test")
    expected = brier_score_loss(labels, scores, pos_label=1, labels=[0, 1])
    assert brier(labels, scores).value == pytest.approx(expected)
    assert prevalence(labels).value == pytest.approx(labels.mean())


def test_by_hand():
    labels = np.array([1, 0, 1, 0], np.uint8)
    scores = np.array([0.9, 0.8, 0.5, 0.1])
    assert auroc(labels, scores).value == 0.75  # 3 of 4 pairs in order
    assert average_precision(labels, scores).value == pytest.approx((1 + 2 / 3) / 2)
    assert f1(labels, scores, Metric(0.5)).value == pytest.approx(0.8)  # 0.5 counts as positive


def test_f1_without_a_threshold_is_undefined_and_names_why():
    threshold = Metric.undefined("no positive image in validation")
    found = f1(np.array([0, 1], np.uint8), np.array([0.2, 0.7]), threshold)
    assert found == Metric(None, "no threshold: no positive image in validation")


def test_macro_is_over_the_defined_classes():
    assert macro([Metric(0.4), Metric.undefined("why"), Metric(0.8)]).value == pytest.approx(0.6)


def test_macro_of_nothing_defined_is_undefined():
    assert macro([Metric.undefined("why")]) == Metric(None, "undefined for every class")
