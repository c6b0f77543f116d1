"""The aggregate posterior of images, by hand."""

import math

import numpy as np
import pytest
import torch

from cxrmodel.models.posterior import AggregatePosterior, kl_by_dimension


def test_the_kl_of_the_prior_is_zero():
    assert not kl_by_dimension(torch.zeros(3, 4), torch.zeros(3, 4)).any()


def test_the_prior_is_no_distance_from_itself():
    found = AggregatePosterior(np.zeros(3), np.eye(3), np.ones(3))
    assert found.kl_to_prior() == pytest.approx(0)
    assert found.kl_by_dimension().tolist() == [0, 0, 0]


def test_mean_and_covariance_are_those_of_the_mixture():
    mu = np.array([[1.0, 0.0], [3.0, 4.0]])
    logvar = np.log([[0.5, 1.0], [1.5, 1.0]])
    found = AggregatePosterior.fit(mu, logvar)
    assert found.mean.tolist() == [2, 2]
    # between images: variances 1 and 4, covariance 2; within: 1 and 1
    assert found.covariance == pytest.approx(np.array([[2.0, 2.0], [2.0, 5.0]]))
    assert found.mu_std.tolist() == [1, 2]
    whole = 0.5 * (7 + 8 - 2 - math.log(2 * 5 - 2 * 2))
    assert found.kl_to_prior() == pytest.approx(whole)
    alone = [0.5 * (2 + 4 - 1 - math.log(2)), 0.5 * (5 + 4 - 1 - math.log(5))]
    assert found.kl_by_dimension() == pytest.approx(alone)
    assert sum(alone) < whole


def test_one_image_is_its_own_aggregate():
    found = AggregatePosterior.fit(np.array([[2.0]]), np.log([[0.25]]))
    assert found.kl_to_prior() == pytest.approx(0.5 * (0.25 + 4 - 1 - math.log(0.25)))
    assert found.mu_std.tolist() == [0]


def test_samples_have_the_mean_and_the_covariance():
    covariance = np.array([[4.0, 1.0], [1.0, 0.5]])
    aggregate = AggregatePosterior(np.array([10.0, -3.0]), covariance, np.ones(2))
    drawn = aggregate.sample(200_000, np.random.default_rng(0))
    assert drawn.mean(axis=0) == pytest.approx([10, -3], abs=0.02)
    assert np.cov(drawn.T) == pytest.approx(covariance, abs=0.05)
