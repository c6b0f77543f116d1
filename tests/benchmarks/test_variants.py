"""The ablation's variants train through the product's own seam."""

import numpy as np
import pytest
import torch

from benchmarks.ablation import recipes
from benchmarks.variants import AVERAGED, DECAY, VARIANTS, averaged_weights
from cxrmodel.config import VAEConfig
from cxrmodel.models.vae import VAEOutput
from cxrmodel.training.vae.objective import OBJECTIVES, make_objective

CONFIG = VAEConfig(latent_dim=2, kl_weight=0.1)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Register the variants, and for these tests alone."""
    for name, objective in VARIANTS.items():
        monkeypatch.setitem(OBJECTIVES, name, objective)


@pytest.fixture
def batch():
    """Two images of 192 px, which hold five scales, and what a network made of them."""
    generator = torch.Generator().manual_seed(0)
    image, reconstruction = torch.rand(2, 2, 1, 192, 192, generator=generator)
    posterior = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.zeros(2, 2)  # KL 0.5 and 0 nats
    return VAEOutput(reconstruction.requires_grad_(), *posterior), image


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_has_gradients(batch, name):
    objective = make_objective(CONFIG.model_copy(update={"objective": name}))
    output, image = batch
    terms = objective.measure(output, image)
    assert tuple(terms) == objective.terms
    objective.loss(terms, objective.weights(10)).backward()
    assert output.reconstruction.grad.abs().sum() > 0


def loss_of(name, batch, step=0):
    objective = make_objective(CONFIG.model_copy(update={"objective": name}))
    terms = objective.measure(*batch)
    return terms, objective.loss(terms, objective.weights(step)).item()


def test_losses_by_hand(batch):
    terms, plain = loss_of("l1_kl", batch)
    l1 = terms["l1"].item()
    assert plain == pytest.approx(l1 + 0.1 * 0.25)
    assert loss_of("free bits, 0.5 nats", batch)[1] == pytest.approx(l1 + 0.1 * 0.5)
    assert loss_of("Laplace scale", batch)[1] == pytest.approx(np.log(l1) + 0.5 / 192**2)
    assert loss_of("KL warm-up", batch, step=0)[1] == pytest.approx(l1)
    assert loss_of("KL warm-up", batch, step=144)[1] == pytest.approx(l1 + 0.05 * 0.25)
    assert loss_of("KL warm-up", batch, step=1000)[1] == pytest.approx(plain)
    terms, loss = loss_of("plus MS-SSIM", batch)
    assert loss == pytest.approx(plain + 0.1 * terms["dissimilarity"].item())


def test_weights_are_averaged_until_the_last_step():
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    seen = []
    with averaged_weights(3):
        for _ in range(3):
            weight.grad = torch.tensor(-1.0)
            optimizer.step()
            seen.append(weight.item())
    average = 1.0  # the first step's weight
    for value in (2.0, 3.0):
        average = DECAY * average + (1 - DECAY) * value
    assert seen == [1, 2, pytest.approx(average)]
    weight.grad = torch.tensor(-1.0)
    optimizer.step()
    assert weight.item() == pytest.approx(average + 1)


def test_every_variant_is_a_recipe():
    assert {*VARIANTS, AVERAGED} < set(recipes())
    assert [recipes()[name].objective for name in VARIANTS] == list(VARIANTS)
