"""Scores per data set, by hand."""

import numpy as np
import pytest

from cxrmodel.evaluation.audit.sources import evaluate_sources
from cxrmodel.evaluation.patient_bootstrap import PatientBootstrap
from cxrmodel.evaluation.predictions import Predictions


@pytest.fixture
def scores():
    """Two data sets: one is ranked well, and one, which knows one label only, wrongly."""
    labels = np.array([[0, 0], [1, 1], [0, 0], [1, 1], [1, np.nan], [0, np.nan], [1, np.nan]])
    ranks = np.array([0.1, 0.8, 0.2, 0.9, 0.3, 0.7, 0.4])
    patients = np.arange(7)
    test = Predictions(("A", "B"), labels, np.stack([ranks, ranks], axis=1), patients)
    of_one = patients < 4
    members = {"one": of_one, "two": ~of_one, "none": np.zeros(7, dtype=bool)}
    bootstrap = PatientBootstrap(patients, num_resamples=50)
    return evaluate_sources(test, test, members, np.arange(7.0), bootstrap)


def test_a_data_set_is_judged_on_its_own_images_and_labels(scores):
    one, two = scores["one"], scores["two"]
    assert (one.num_images, one.num_patients, one.num_classes) == (4, 4, 2)
    assert (two.num_images, two.num_patients, two.num_classes) == (3, 3, 1)
    assert (one.auroc.value, two.auroc.value) == (1, 0)
    assert two.average_precision.value == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert (one.l1.value, two.l1.value) == (1.5, 5)
    assert one.l1.interval[0] < 1.5 < one.l1.interval[1]


def test_a_data_set_without_a_test_image_has_no_score(scores):
    none = scores["none"]
    assert (none.num_images, none.num_classes, none.auroc.value) == (0, 0, None)
    assert none.l1.reason == "no test image"
