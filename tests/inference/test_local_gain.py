"""What local labels would gain: much where home's probabilities are wrong, nothing else."""

import numpy as np
import pytest
from scipy.special import expit, logit

from cxrmodel.errors import DataError
from cxrmodel.evaluation.patient_bootstrap import Estimate
from cxrmodel.inference.local_gain import draw_images, gain_of_labels
from tests.evaluation.places import LABELS, draw_place

THRESHOLDS = dict.fromkeys(LABELS, Estimate(0.5))


@pytest.fixture(scope="module")
def site():
    return draw_place(np.random.default_rng(0), 2.0, 0.3, num_patients=300).predictions


def test_wrong_probabilities_gain_much(site):
    wrong = site.with_probabilities(expit(logit(site.probabilities) + 2.5))
    found = gain_of_labels(wrong, THRESHOLDS, 200)
    assert found.fitted == dict.fromkeys(LABELS, 1.0)
    for name, sign in (("f1", 1), ("brier", -1), ("ece", -1)):
        low, high = found.gains[name].interval
        assert low <= found.gains[name].value <= high
        assert min(sign * low, sign * high) > 0, name


def test_the_same_seed_gives_the_same(site):
    one, two = (gain_of_labels(site, THRESHOLDS, 100, seed=3) for _ in range(2))
    assert one.gains == two.gains


def test_patients_are_drawn_whole(site):
    drawn = draw_images(site.patients, 100, np.random.default_rng(1))
    assert 100 <= drawn.sum() < 104
    assert not set(site.patients[drawn]) & set(site.patients[~drawn])


@pytest.mark.parametrize(
    "num_images, message", [(20, "nothing could be fitted"), (600, "at most half of them")]
)
def test_too_few_images_are_told(site, num_images, message):
    rare = draw_place(np.random.default_rng(0), 2.0, 0.05).predictions
    with pytest.raises(DataError, match=message):
        gain_of_labels(rare, THRESHOLDS, num_images)
