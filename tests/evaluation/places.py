"""Made-up images of two places, whose scores are known."""

import numpy as np
import pandas as pd
from scipy.special import expit

from cxrmodel.evaluation.calibration import Calibrator
from cxrmodel.evaluation.patient_bootstrap import Estimate
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.evaluation.sites import Frozen, Place

LABELS = ("Effusion", "Mass")
OWN, WITHIN = 0.8, 0.6  # standard deviations of the score, between patients and within one


def draw_place(rng, separation, prevalence, num_patients=250, first=0, covariates=False):
    """Patients of one to four images, who share the labels and most of the score."""
    counts = rng.integers(1, 5, num_patients)
    owner = np.repeat(np.arange(num_patients), counts)
    shape = (num_patients, len(LABELS))
    labels = (rng.random(shape) < prevalence).astype(np.float64)[owner]
    scores = separation * labels + OWN * rng.normal(size=shape)[owner]
    scores += WITHIN * rng.normal(size=scores.shape)
    found = Predictions(LABELS, labels, expit(scores - 1.5), owner.astype(np.int64) + first)
    return Place(found, _covariates(rng, len(owner)) if covariates else _nothing(len(owner)))


def _covariates(rng, count):
    return pd.DataFrame(
        {
            "view": rng.choice(["AP", "PA"], count),
            "sex": rng.choice(["F", "M"], count),
            "age": rng.integers(20, 90, count),
            "follow_up": rng.integers(0, 4, count),
        }
    )


def _nothing(count):
    return pd.DataFrame(None, range(count), ["view", "sex", "age", "follow_up"], dtype=object)


def frozen(validation, threshold=0.5):
    """What a model brings from home: a threshold, and a scaling that changes something."""
    return Frozen(
        dict.fromkeys(LABELS, Estimate(threshold)),
        dict.fromkeys(LABELS, Calibrator(0.8, -0.2)),
        validation,
    )
