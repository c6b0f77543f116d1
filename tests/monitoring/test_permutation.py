"""The tests of drift: exact numbers, one vote per patient, one level for all."""

import numpy as np
import pytest

from cxrmodel.monitoring.permutation import compare_patients, weighted_ranks


def compare(values, patients, in_window, *, shares=(), joint=(), **settings):
    """Compare (N, F) values; `shares` and `joint` are columns."""
    columns = np.arange(values.shape[1])
    return compare_patients(
        values,
        np.isin(columns, shares),
        np.isin(columns, joint),
        np.asarray(patients),
        np.asarray(in_window),
        **{"num_permutations": 199, **settings},
    )


def people(rng, num_reference, num_window, num_columns):
    """Values of patients of one to four images, and whose they are."""
    number = rng.integers(1, 5, num_reference + num_window)
    patients = np.repeat(np.arange(len(number)), number)
    own = rng.normal(size=(len(number), num_columns))
    values = own[patients] + rng.normal(size=(len(patients), num_columns))
    return values, patients, patients >= num_reference


def test_ranks_are_weighted_and_ties_are_in_the_middle():
    ranks = weighted_ranks(np.array([3.0, 1.0, 3.0, 2.0]), np.array([1.0, 2.0, 1.0, 4.0]))
    np.testing.assert_allclose(ranks, [7 / 8, 1 / 8, 7 / 8, 4 / 8])


def test_the_effect_is_how_often_the_window_lies_above_the_reference():
    values = np.array([[1.0], [2.0], [3.0], [2.5], [4.0]])
    found = compare(values, range(5), [False] * 3 + [True] * 2)
    assert found.effect[0] == pytest.approx(5 / 6 - 0.5)  # 5 of 6 pairs
    share = compare(values > 2.2, range(5), [False] * 3 + [True] * 2, shares=[0])
    assert share.effect[0] == pytest.approx(1 - 1 / 3)


def test_of_windows_without_drift_few_are_called_drift():
    alarms = 0
    for seed in range(100):
        values, patients, in_window = people(np.random.default_rng(seed), 90, 60, 12)
        values[:, -2:] = values[:, -2:] > 2
        found = compare(values, patients, in_window, shares=[10, 11], joint=range(8))
        alarms += found.p_adjusted.min() <= 0.05
    assert alarms <= 11  # of 5 expected; more in 1 of 100 such tests


def test_many_images_of_one_patient_are_no_drift():
    values, patients, in_window = people(np.random.default_rng(3), 200, 60, 5)
    values = np.concatenate([values, np.full((300, 5), 6.0)])
    patients = np.concatenate([patients, np.full(300, patients.max() + 1)])
    in_window = np.concatenate([in_window, np.ones(300, bool)])
    assert compare(values, patients, in_window, joint=range(5)).p_adjusted.min() > 0.05
    alone = compare(values, np.arange(len(values)), in_window, joint=range(5))
    assert alone.p_adjusted.max() <= 0.05  # what the vote per patient is for


def test_what_has_moved_is_found_and_nothing_else():
    values, patients, in_window = people(np.random.default_rng(4), 300, 150, 6)
    values[in_window, 2] += 1
    values[in_window, 4] = np.where(np.arange(in_window.sum()) % 3 == 0, np.nan, -3.0)
    found = compare(values, patients, in_window, joint=range(4))
    np.testing.assert_array_equal(found.p_adjusted <= 0.05, [0, 0, 1, 0, 1, 0, 1])
    assert found.effect[4] < -0.4
    assert (found.p <= found.p_adjusted).all()


def test_small_moves_of_all_latents_are_found_together():
    values, patients, in_window = people(np.random.default_rng(5), 400, 200, 40)
    values[in_window] += 0.25
    found = compare(values, patients, in_window, joint=range(40))
    assert found.p_adjusted[-1] <= 0.05
    assert found.z[-1] > np.abs(found.z[:-1]).max()


def test_a_rare_event_that_the_reference_never_had_is_found():
    in_window = np.arange(900) >= 600
    values = np.zeros((900, 20))
    values[-12:, 3] = 1
    found = compare(values, range(900), in_window, shares=range(20))
    assert found.p_adjusted[3] <= 0.05
    assert found.z[[0, 1]].tolist() == [0, 0]  # what never happens says nothing
    assert found.p_adjusted[0] == 1


def test_the_same_seed_gives_the_same_numbers():
    values, patients, in_window = people(np.random.default_rng(6), 60, 60, 3)
    one, two = (compare(values, patients, in_window, joint=[0, 1]) for _ in range(2))
    np.testing.assert_array_equal(one.p_adjusted, two.p_adjusted)
    np.testing.assert_array_equal(one.z, two.z)
