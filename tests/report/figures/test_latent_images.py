import numpy as np

from cxrmodel.models.posterior import AggregatePosterior
from cxrmodel.report.figures.latent_images import most_varied, nearest_of_others, traverse


def test_neighbours_are_by_distance_and_never_of_the_same_patient():
    mu = np.array([[0.1, 0], [3, 0], [1, 0], [0.2, 0]])
    patients = np.array(["p", "q", "r", "p"], dtype=object)
    assert nearest_of_others(np.zeros(2), "p", mu, patients, 5).tolist() == [2, 1]
    assert nearest_of_others(np.zeros(2), "q", mu, patients, 2).tolist() == [0, 3]


def test_a_traversal_goes_around_the_mean_latent_in_its_own_standard_deviations():
    aggregate = AggregatePosterior(np.array([5.0, -2.0]), np.eye(2), np.array([0.5, 0.1]))
    latents = traverse(aggregate, 0)
    assert latents[:, 0].tolist() == [3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5]
    assert set(latents[:, 1]) == {-2.0}


def test_the_dimensions_that_vary_most_between_images_are_traversed():
    spread = np.array([0.1, 3.0, 0.0, 2.0, 0.5, 1.0, 0.2])
    aggregate = AggregatePosterior(100 * spread, np.eye(7), spread)
    assert most_varied(aggregate) == [1, 3, 5, 4, 6]
