"""Thresholds by what they give on validation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cxrmodel.inference.bundle import Bundle
from cxrmodel.inference.operating_points import operating_points


@pytest.fixture
def bundle() -> Bundle:
    """100 images of 50 patients; A is told well, B has two positives."""
    scores = np.arange(100) / 100
    positive_a = (np.arange(100) % 10 < 2) | (scores > 0.9)
    reference = pd.DataFrame(
        {
            "patient": np.arange(100) // 2,
            "y_A": positive_a.astype(np.uint8),
            "p_A": scores.astype(np.float32),
            "y_B": (np.arange(100) < 2).astype(np.uint8),
            "p_B": scores.astype(np.float32),
        }
    )
    return Bundle("here", "0" * 64, {"labels": ["A", "B"]}, {}, reference)


def measured(bundle, label, threshold):
    reference = bundle.reference
    called = reference[f"p_{label}"].to_numpy(np.float64) >= threshold
    positive = reference[f"y_{label}"].to_numpy() == 1
    return called[positive].mean(), (~called)[~positive].mean(), 100 * called.mean()


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 1.0])
def test_sensitivity_is_reached_by_the_highest_such_threshold(bundle, share):
    point, undefined = operating_points(bundle, sensitivity=share)
    sensitivity, specificity, alerts = measured(bundle, "A", point.threshold)
    assert sensitivity >= share
    higher = min(x for x in bundle.reference["p_A"].astype(float) if x > point.threshold)
    assert measured(bundle, "A", higher)[0] < share or share == 1.0
    assert point.rates == pytest.approx(
        {"sensitivity": sensitivity, "specificity": specificity, "alerts_per_100": alerts}
    )
    assert undefined.threshold is None
    assert "2 positive images" in undefined.sentence()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95, 1.0])
def test_specificity_is_reached(bundle, share):
    for point in operating_points(bundle, specificity=share):
        assert measured(bundle, point.label, point.threshold)[1] >= share


@pytest.mark.parametrize("alerts", [0, 5, 33.3, 100])
def test_alerts_are_at_most_as_many_as_asked_for(bundle, alerts):
    for point in operating_points(bundle, alerts_per_100=alerts):
        given = measured(bundle, point.label, point.threshold)[2]
        assert given <= alerts
        assert given > alerts - 1 - 1e-9


def test_a_threshold_of_ones_own_comes_first(bundle):
    points = operating_points(bundle, sensitivity=0.9, thresholds={"A": 0.25})
    assert points[0].threshold == 0.25
    assert points[0].rates["alerts_per_100"] == pytest.approx(75)
    assert operating_points(bundle) == []


def test_intervals_hold_the_value_and_shrink_with_more_patients(bundle):
    few = operating_points(bundle, thresholds={"A": 0.5})[0]
    more = pd.concat(
        [bundle.reference.assign(patient=bundle.reference["patient"] + 50 * k) for k in range(9)]
    )
    many = operating_points(replace(bundle, reference=more), thresholds={"A": 0.5})[0]
    for name, (low, high) in few.intervals.items():
        assert low <= few.rates[name] <= high
        ratio = (high - low) / (many.intervals[name][1] - many.intervals[name][0])
        assert ratio == pytest.approx(3, rel=0.3)  # the root of nine


def test_only_one_wish_can_be_met(bundle):
    with pytest.raises(ValueError, match="Give one of sensitivity and specificity"):
        operating_points(bundle, sensitivity=0.9, specificity=0.9)


def test_a_threshold_for_no_label_is_refused(bundle):
    with pytest.raises(ValueError, match="'C' is no label; the labels are A, B"):
        operating_points(bundle, thresholds={"C": 0.5})


@pytest.mark.parametrize(
    "asked_for", [{"alerts_per_100": 20}, {"specificity": 0.9}, {"thresholds": {"B": 0.5}}]
)
def test_a_rate_of_fewer_than_ten_images_is_undefined(bundle, asked_for):
    point = operating_points(bundle, **asked_for)[-1]
    assert set(point.rates) == set(point.intervals) == {"specificity", "alerts_per_100"}
    assert point.threshold is not None
    assert "sensitivity" not in point.sentence().partition(";")[0]
    assert point.sentence().endswith(
        "; undefined: sensitivity, as validation has 2 positive images, fewer than 10"
    )


@pytest.mark.parametrize("num_positive, is_there", [(9, False), (10, True)])
def test_ten_images_are_enough_for_a_rate(bundle, num_positive, is_there):
    positive = (np.arange(100) < num_positive).astype(np.uint8)
    counted = replace(bundle, reference=bundle.reference.assign(y_B=positive))
    (point,) = operating_points(counted, thresholds={"B": 0.05})
    assert ("sensitivity" in point.rates) == is_there
    assert ("undefined" in point.sentence()) == (not is_there)


def test_a_threshold_without_any_rate_is_said(bundle):
    few = replace(bundle, reference=bundle.reference.iloc[:3])
    (point,) = operating_points(few, thresholds={"A": 0.5})
    assert point.rates == {}
    assert point.sentence() == (
        "A: threshold 0.5000; undefined: sensitivity, specificity, alerts per 100, as validation "
        "has 2 positive images and 1 negative image and 3 images, fewer than 10"
    )
