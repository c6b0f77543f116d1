"""How often an interval holds the truth, over data sets drawn anew."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from cxrmodel.evaluation.evaluate import evaluate
from cxrmodel.evaluation.metrics import estimate_auroc
from cxrmodel.evaluation.patient_bootstrap import PatientBootstrap
from cxrmodel.evaluation.predictions import Predictions

NUM_DATA_SETS = 400
NUM_NAIVE = 100
BETWEEN_PATIENTS, WITHIN_PATIENT = 1.0, 0.5  # standard deviations of the score
SPREAD = np.sqrt(2 * (BETWEEN_PATIENTS**2 + WITHIN_PATIENT**2))


def draw(rng, separation, num_patients=300):
    """Patients of one to five images that share the label and most of the score."""
    patients = np.repeat(np.arange(num_patients), rng.integers(1, 6, num_patients))
    labels = (rng.random(num_patients) < 0.4).astype(np.uint8)[patients]
    own = BETWEEN_PATIENTS * rng.normal(size=num_patients)[patients]
    scores = separation * labels + own + WITHIN_PATIENT * rng.normal(size=len(patients))
    return Predictions(("A",), labels[:, None], expit(scores)[:, None], patients)


def holds(sample, units, truth):
    """Say whether the interval holds the truth when some units of images are drawn."""
    bootstrap = PatientBootstrap(units, num_resamples=150)
    everything = np.ones(sample.num_images, dtype=bool)
    columns = sample.labels[:, 0], sample.probabilities[:, 0]
    found = estimate_auroc(bootstrap, *columns, everything)
    return found.interval[0] <= truth <= found.interval[1]


def auroc_interval(sample, num_resamples):
    bootstrap = PatientBootstrap(sample.patients, num_resamples=num_resamples)
    return evaluate(sample, sample, bootstrap).macro["auroc"].interval


@pytest.mark.parametrize("separation", [0.0, 1.0])
def test_patient_intervals_hold_the_truth_as_often_as_they_say_and_image_intervals_do_not(
    separation,
):
    """Of 95 % intervals 93 to 97 % hold it; drawing images instead of patients, far fewer."""
    truth = norm.cdf(separation / SPREAD)  # the AUROC of two normal distributions
    rng = np.random.default_rng(11)
    by_patient, by_image = [], []
    for number in range(NUM_DATA_SETS):
        sample = draw(rng, separation)
        by_patient.append(holds(sample, sample.patients, truth))
        if number < NUM_NAIVE:
            by_image.append(holds(sample, np.arange(sample.num_images), truth))
    assert 0.93 <= np.mean(by_patient) <= 0.97
    assert np.mean(by_image) < 0.85


def test_intervals_of_permuted_labels_are_around_one_half():
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(40):
        skilled, order = draw(rng, 2.0, 80), rng.permutation(80)
        of_patient = np.zeros(80, np.uint8)
        of_patient[skilled.patients] = skilled.labels[:, 0]
        labels = of_patient[order][skilled.patients][:, None]  # patients swap their labels
        permuted = Predictions(("A",), labels, skilled.probabilities, skilled.patients)
        assert auroc_interval(skilled, 50)[0] > 0.5
        low, high = auroc_interval(permuted, 100)
        held += low <= 0.5 <= high
    assert held >= 36
