import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrmodel.evaluation.label_baselines import predict_from_metadata, remember_patients


def test_memory_by_hand():
    patients = pd.Series(["a", "a", "a", "b", "c", "a"])
    labels = np.array([[1], [0], [1], [0], [1], [1]], np.uint8)
    in_train = np.array([True, True, False, True, False, False])
    found = remember_patients(patients, labels, in_train)[:, 0]
    prevalence = 1 / 3  # of the train rows 1, 0, 0
    assert found[2] == found[5] == pytest.approx((1 + prevalence) / 3)  # two train images of a
    assert found[4] == pytest.approx(prevalence)  # train does not hold c
    assert found[0] == pytest.approx((0 + prevalence) / 2)  # without its own label
    assert found[1] == pytest.approx((1 + prevalence) / 2)


def test_memory_is_worth_nothing_where_patients_are_apart_and_much_where_they_are_not():
    rng = np.random.default_rng(0)
    patients = np.arange(600) // 3
    labels = (rng.random(200) < 0.4).astype(np.uint8)[patients][:, None]
    apart, mixed = patients < 140, rng.random(600) < 0.7
    names = pd.Series(patients.astype(str))
    alone = remember_patients(names, labels, apart)[~apart]
    assert len(np.unique(alone)) == 1
    leaked = remember_patients(names, labels, mixed)[~mixed]
    assert roc_auc_score(labels[~mixed], leaked) > 0.9


def test_metadata_learn_what_they_tell_and_test_rows_teach_nothing():
    rng = np.random.default_rng(1)
    count = 400
    images = pd.DataFrame(
        {
            "age": pd.array(rng.integers(1, 90, count), dtype="Int16"),
            "sex": pd.array(rng.choice(["F", "M"], count), dtype="string"),
            "view": rng.choice(np.array(["AP", "PA", None], dtype=object), count),
        }
    )
    images.loc[::7, ["age", "sex"]] = pd.NA
    labels = np.stack([images["view"] == "AP", rng.random(count) < 0.3], axis=1).astype(np.uint8)
    in_train = np.arange(count) < 250
    found = predict_from_metadata(images, labels, in_train)
    assert roc_auc_score(labels[~in_train, 0], found[~in_train, 0]) == 1
    assert np.isfinite(found).all()
    other = labels.copy()
    other[~in_train] = 1 - other[~in_train]
    assert np.array_equal(predict_from_metadata(images, other, in_train), found)


def test_metadata_that_are_all_missing_give_the_prevalence():
    images = pd.DataFrame(
        {
            "age": pd.array([pd.NA] * 6, dtype="Int16"),
            "sex": pd.array([pd.NA] * 6, dtype="string"),
            "view": [None] * 6,
        }
    )
    labels = np.array([[1, 0]] * 2 + [[0, 0]] * 4, np.uint8)
    found = predict_from_metadata(images, labels, np.ones(6, bool))
    assert found[:, 0] == pytest.approx(1 / 3, abs=1e-3)
    assert (found[:, 1] == 0).all()
