import numpy as np
import pytest

from cxrmodel.evaluation.patient_bootstrap import (
    BLOCK,
    Estimate,
    PatientBootstrap,
    difference,
    draw_patients,
    few_patients,
    macro,
    mean_over_classes,
    percentile_interval,
)

NAN = np.nan


def test_every_draw_has_as_many_patients_and_the_seed_decides():
    one, same, other = (draw_patients(9, 40, seed) for seed in (1, 1, 2))
    assert (one.sum(axis=1) == 9).all()
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_mean_over_some_images_by_hand():
    bootstrap = PatientBootstrap(np.array([0, 0, 1, 1]), num_resamples=200)
    values = np.array([1.0, 9.0, 4.0, 9.0])
    found = bootstrap.mean(values, values < 5, "none")
    assert found.value == 2.5
    assert found.interval == (1, 4)  # one patient twice, or the other
    assert set(found.resamples) == {1, 2.5, 4}
    assert bootstrap.mean(values, values > 9, "none") == Estimate.undefined("none")


def test_a_score_of_one_patient_has_no_interval():
    bootstrap = PatientBootstrap(np.array([0, 0, 1]), num_resamples=20)
    alone = np.array([True, True, False])
    assert bootstrap.mean(np.arange(3.0), alone, "none") == Estimate(0.5)


def test_resampling_block_by_block_is_resampling_at_once():
    bootstrap = PatientBootstrap(np.arange(7), num_resamples=BLOCK + 5, seed=3)
    drawn = bootstrap.resample(lambda block: block)
    assert np.array_equal(drawn, draw_patients(7, BLOCK + 5, 3))


def test_a_difference_is_paired_and_its_verdict_needs_an_interval():
    bootstrap = PatientBootstrap(np.arange(30), num_resamples=100)
    everyone = np.ones(30, dtype=bool)
    low = bootstrap.mean(np.arange(30.0), everyone, "none")
    high = bootstrap.mean(np.arange(30.0) + 1, everyone, "none")
    found = bootstrap.difference(high, low)
    assert found.value == pytest.approx(1)
    assert found.interval == pytest.approx((1, 1))  # though each by itself varies more
    assert (found.verdict, bootstrap.difference(low, high).verdict) == ("higher", "lower")
    assert bootstrap.difference(low, low).verdict == difference(high, low).verdict == "unclear"
    assert bootstrap.difference(low, Estimate.undefined("why"), "no").reason == "no"


def test_a_mean_over_classes_is_over_the_defined_ones():
    found = mean_over_classes(np.array([[1, NAN, 3], [NAN, NAN, NAN]]))
    assert found.tolist() == pytest.approx([2, NAN], nan_ok=True)


def test_interval_by_hand():
    assert percentile_interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))
    assert percentile_interval(np.array([np.nan, 3.0])) == (3.0, 3.0)
    assert percentile_interval(np.array([np.nan])) is None


def test_few_positives_are_warned_of_by_patient():
    assert few_patients(10, 40) is None
    assert few_patients(1, 40) == (
        "40 positive images of 1 patient in test: fewer than 10, so the interval is itself "
        "uncertain"
    )
    assert few_patients(2) == ("2 patients: fewer than 10, so the interval is itself uncertain")


def test_macro_is_over_the_defined_classes():
    assert macro([Estimate(0.4), Estimate.undefined("why"), Estimate(0.8)]).value == pytest.approx(
        0.6
    )


def test_macro_of_nothing_defined_is_undefined():
    assert macro([Estimate.undefined("why")]) == Estimate.undefined("undefined for every class")
