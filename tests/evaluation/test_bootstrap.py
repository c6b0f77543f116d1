import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from cxrmodel.evaluation.bootstrap import BLOCK, Ranking, draw_patients, resample_patients
from cxrmodel.evaluation.intervals import few_positives, percentile_interval
from cxrmodel.evaluation.predictions import Predictions


@st.composite
def weighted_scores(draw):
    size = draw(st.integers(2, 25))
    labels = draw(arrays(np.uint8, size, elements=st.integers(0, 1)))
    scores = draw(arrays(np.float64, size, elements=st.sampled_from([0.1, 0.2, 0.5, 0.7])))
    return labels, scores, draw(arrays(np.float64, (3, size), elements=st.integers(0, 4)))


@given(weighted_scores())
@settings(max_examples=200)
def test_weighted_scores_equal_scikit_learn(sample):
    labels, scores, weights = sample
    areas, precisions = Ranking.of(labels, scores).scores(weights)
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


def clustered(rng, num_patients=30, num_images=12):
    """Images of one patient share the label and most of the score; the AUROC is 0.5."""
    patients = np.repeat(np.arange(num_patients), num_images)
    labels = (np.arange(num_patients) % 2)[patients].astype(np.uint8)
    scores = rng.normal(size=num_patients)[patients] + 0.3 * rng.normal(size=len(patients))
    probabilities = 1 / (1 + np.exp(-scores))
    return Predictions(("A",), labels[:, None], probabilities[:, None], patients)


def test_each_resample_equals_scikit_learn_on_the_drawn_images():
    sample = clustered(np.random.default_rng(3), num_patients=8, num_images=3)
    drawn = resample_patients(sample, np.array([0.6]), num_resamples=BLOCK + 3, seed=5)
    weights = np.concatenate(list(draw_patients(8, BLOCK + 3, 5)))[:, sample.patients]
    labels, scores = sample.labels[:, 0], sample.probabilities[:, 0]
    for row in (0, BLOCK - 1, BLOCK, BLOCK + 2):
        again = np.repeat(np.arange(len(labels)), weights[row].astype(int))
        assert drawn.auroc[row, 0] == pytest.approx(roc_auc_score(labels[again], scores[again]))
        for found, threshold in ((drawn.f1, 0.6), (drawn.f1_at_0_5, 0.5)):
            expected = f1_score(labels[again], scores[again] >= threshold)
            assert found[row, 0] == pytest.approx(expected)


def test_every_draw_has_as_many_patients_and_the_seed_decides():
    one, same, other = (np.concatenate(list(draw_patients(9, 40, seed))) for seed in (1, 1, 2))
    assert (one.sum(axis=1) == 9).all()
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_an_undefined_threshold_gives_an_undefined_f1_alone():
    sample = clustered(np.random.default_rng(0))
    drawn = resample_patients(sample, np.array([np.nan]), num_resamples=5, seed=0)
    assert np.isnan(drawn.f1).all()
    assert not np.isnan(drawn.f1_at_0_5).any()


def test_interval_by_hand():
    assert percentile_interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))
    assert percentile_interval(np.array([np.nan, 3.0])) == (3.0, 3.0)
    assert percentile_interval(np.array([np.nan])) is None


def test_few_positives_are_warned_of_by_patient():
    assert few_positives(40, 10) is None
    assert few_positives(40, 1) == (
        "40 positive images of 1 patient in test: fewer than 10, so the interval is itself "
        "uncertain"
    )
