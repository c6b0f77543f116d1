import math

import pytest
import torch
from torch import nn

from cxrmodel.models.vae import VAE


def test_the_notebooks_network_has_16_140_129_parameters():
    with torch.device("meta"):
        vae = VAE(image_size=1024, latent_dim=64)
    assert sum(weight.numel() for weight in vae.parameters()) == 16_140_129


@pytest.mark.parametrize(("size", "side"), [(64, 1), (128, 2), (192, 3)])
def test_a_smaller_image_gives_a_smaller_last_map(size, side):
    vae = VAE(size, latent_dim=5)
    assert vae.encoder.to_mu.in_features == 256 * side**2
    output = vae(torch.rand(2, 1, size, size), torch.zeros(2, 5))
    assert output.reconstruction.shape == (2, 1, size, size)
    assert output.mu.shape == output.logvar.shape == (2, 5)
    assert 0 <= output.reconstruction.min() <= output.reconstruction.max() <= 1


@pytest.mark.parametrize("size", [0, 63, 100, -64])
def test_an_impossible_size_is_refused(size):
    with pytest.raises(ValueError, match=f"positive multiple of 64, got {size}"):
        VAE(size, latent_dim=4)


def test_no_latent_dimension_is_refused():
    with pytest.raises(ValueError, match="latent_dim must be at least 1, got 0"):
        VAE(64, latent_dim=0)


def test_logvar_is_clamped():
    vae = VAE(64, latent_dim=2)
    nn.init.constant_(vae.encoder.to_logvar.bias, 100)
    _, logvar = vae.encoder(torch.rand(1, 1, 64, 64))
    assert logvar.tolist() == [[10, 10]]


def test_zero_noise_gives_the_reconstruction_from_mu():
    vae = VAE(64, latent_dim=3)
    image = torch.rand(2, 1, 64, 64)
    output = vae(image, torch.zeros(2, 3))
    assert torch.equal(output.reconstruction, vae.decoder(vae.encoder(image)[0]))


def test_noise_is_scaled_by_the_posteriors_deviation():
    vae = VAE(64, latent_dim=2)
    nn.init.zeros_(vae.encoder.to_logvar.weight)
    nn.init.constant_(vae.encoder.to_logvar.bias, math.log(9))  # a deviation of 3
    image, noise = torch.rand(1, 1, 64, 64), torch.tensor([[1.0, -2.0]])
    mu = vae.encoder(image)[0]
    expected = vae.decoder(mu + torch.tensor([[3.0, -6.0]]))
    torch.testing.assert_close(vae(image, noise).reconstruction, expected)


def test_the_moments_and_the_image_are_float32_under_autocast():
    vae = VAE(64, latent_dim=3)
    with torch.autocast("cpu", torch.bfloat16):
        output = vae(torch.rand(1, 1, 64, 64), torch.zeros(1, 3))
    assert {tensor.dtype for tensor in output} == {torch.float32}
