"""The default objective, by hand."""

import math

import pytest
import torch

from cxrmodel.config import VAEConfig
from cxrmodel.models.vae import VAEOutput
from cxrmodel.training.vae.l1_kl import L1KL
from cxrmodel.training.vae.objective import loss_of_means


@pytest.fixture
def objective():
    return L1KL(VAEConfig(latent_dim=2, kl_weight=0.1))


def test_terms_and_loss_by_hand(objective):
    # KL of N(1, 1) is 1/2; of N(0, e) it is (e - 1 - 1) / 2: two dimensions, one image.
    output = VAEOutput(
        reconstruction=torch.tensor([[[[0.5, 0.25], [1.0, 0.0]]]]),
        mu=torch.tensor([[1.0, 0.0]]),
        logvar=torch.tensor([[0.0, 1.0]]),
    )
    image = torch.tensor([[[[0.0, 0.25], [0.5, 0.5]]]])
    terms = objective.measure(output, image)
    assert tuple(terms) == objective.terms
    assert terms["l1"].item() == pytest.approx((0.5 + 0 + 0.5 + 0.5) / 4)
    assert terms["kl_nats"].item() == pytest.approx(0.5 + (math.e - 2) / 2)
    loss = objective.loss(terms, objective.weights(7))
    assert loss.item() == pytest.approx(terms["l1"].item() + 0.1 * terms["kl_nats"].item() / 2)


def test_the_loss_of_means_is_that_of_the_terms(objective):
    means = {"l1": 0.25, "kl_nats": 3.0}
    assert loss_of_means(objective, means, objective.weights(0)) == pytest.approx(0.25 + 0.1 * 1.5)
