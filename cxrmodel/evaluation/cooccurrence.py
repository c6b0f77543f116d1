"""Which findings occur together, in the labels and in what is called positive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrmodel.evaluation.patient_bootstrap import Floats
from cxrmodel.evaluation.predictions import Predictions


@dataclass(frozen=True)
class Cooccurrence:
    """Of the test images with a finding, the share that have another one as well.

    Attributes:
        names: C pathologies.
        counts: (C,), test images labelled with each.
        labelled: (C, C), share of the row's images that are labelled with the column's pathology,
            of those where that is known.
        called: (C, C), share that are called positive for it; its diagonal is the sensitivity.
            NaN where there is no such image, or the column has no threshold.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    labelled: Floats
    called: Floats


def count_cooccurrence(test: Predictions, limits: Floats) -> Cooccurrence:
    """Count which findings are labelled together, and which are called positive together.

    Args:
        test: Predictions of the test images.
        limits: (C,), thresholds from validation, NaN where there is none; a probability equal to
            its threshold is positive.
    """
    positive = (test.labels == 1).astype(np.float64)  # (N, C)
    called = (test.probabilities >= limits).astype(np.float64)
    called[:, np.isnan(limits)] = np.nan
    counts = positive.sum(axis=0).astype(np.int64)
    with np.errstate(invalid="ignore"):
        labelled = positive.T @ positive / (positive.T @ test.known.astype(np.float64))
        shares = positive.T @ called / counts[:, None]
    return Cooccurrence(test.pathologies, counts, labelled, shares)
