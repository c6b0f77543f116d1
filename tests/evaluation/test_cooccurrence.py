import numpy as np

from cxrmodel.evaluation.cooccurrence import count_cooccurrence
from cxrmodel.evaluation.predictions import Predictions

NAMES = ("Edema", "Mass")


def predictions(labels, probabilities):
    patients = np.arange(len(labels))
    return Predictions(
        NAMES, np.array(labels, dtype=np.uint8), np.array(probabilities, dtype=float), patients
    )


def test_cooccurrence_is_counted_by_row():
    test = predictions(
        [[1, 1], [1, 0], [1, 0], [1, 0], [0, 0]],
        [[0.9, 0.9], [0.9, 0.1], [0.1, 0.9], [0.5, 0.1], [0.9, 0.9]],
    )
    found = count_cooccurrence(test, np.array([0.5, np.nan]))
    assert found.counts.tolist() == [4, 1]
    assert found.labelled.tolist() == [[1, 0.25], [1, 1]]
    assert found.called[:, 0].tolist() == [0.75, 1]  # a probability at the threshold is positive
    assert np.isnan(found.called[:, 1]).all()
    nobody = count_cooccurrence(predictions([[0, 1]], [[0.9, 0.9]]), np.array([0.5, 0.5]))
    assert np.isnan(nobody.labelled[0]).all()
    assert nobody.called[1].tolist() == [1, 1]
