import numpy as np

from cxrmodel.report.latent_pictures import nearest_of_others


def test_neighbours_are_by_distance_and_never_of_the_same_patient():
    mu = np.array([[0.1, 0], [3, 0], [1, 0], [0.2, 0]])
    patients = np.array(["p", "q", "r", "p"], dtype=object)
    assert nearest_of_others(np.zeros(2), "p", mu, patients, 5).tolist() == [2, 1]
    assert nearest_of_others(np.zeros(2), "q", mu, patients, 2).tolist() == [0, 3]
