"""Options of a training that the notebook does not have."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from cxrmodel.config import VAEConfig
from cxrmodel.models.vae import VAE, center_on
from cxrmodel.training.encoding import load_vae
from cxrmodel.training.image_batches import mean_image
from cxrmodel.training.vae.auto_settings import ResolvedVAEConfig
from cxrmodel.training.vae.objective import make_objective
from cxrmodel.training.vae.state import initial_vae
from cxrmodel.training.vae.step import VAESteps
from cxrmodel.training.vae.world import World

pytestmark = pytest.mark.gpu

CONFIG = VAEConfig(epochs=2, batch_size=4, latent_dim=4, lr=1e-3)
ALL = CONFIG.model_copy(
    update={
        "schedule": "cosine",
        "weight_decay": 0.05,
        "group_norm": True,
        "mean_image": True,
        "augmentation": 1.0,
    }
)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def norms_of_narrow_layers(monkeypatch):
    monkeypatch.setattr("cxrmodel.models.vae.MIN_NORM_CHANNELS", 8)


class Interruption(BaseException):
    """What a cancelled flow raises is no Exception either."""


def model_and_steps(config, num_steps):
    resolved = ResolvedVAEConfig(**config.model_dump())
    model = initial_vae(resolved, 64, CPU)
    return model, VAESteps(resolved, make_objective(resolved), model, num_steps, World())


def test_with_everything_on_an_interrupted_training_ends_as_an_unbroken_one(fit, report_every_step):
    unbroken, _ = fit("unbroken", ALL, checkpoints="a")

    def raise_at_five(progress):
        if progress.done >= 5:
            raise Interruption

    with pytest.raises(Interruption):
        fit("broken", ALL, checkpoints="b", report=raise_at_five)
    resumed, _ = fit("broken", ALL, checkpoints="b")
    for name in ("vae.safetensors", "history.parquet", "config.json"):
        assert (resumed / name).read_bytes() == (unbroken / name).read_bytes()


@pytest.mark.parametrize(
    "name", ["schedule", "weight_decay", "group_norm", "mean_image", "augmentation"]
)
def test_each_option_changes_the_weights(fit, name):
    plain, _ = fit("plain", checkpoints="a")
    config = CONFIG.model_copy(update={name: getattr(ALL, name)})
    changed, _ = fit("changed", config, checkpoints="b")
    first, second = (load_file(folder / "vae.safetensors") for folder in (plain, changed))
    name = "decoder.blocks.0.weight"
    assert not torch.equal(first[name], second[name])


def test_a_network_with_norms_and_a_mean_image_is_loaded_as_it_was_trained(fit):
    directory, _ = fit(config=ALL)
    described = json.loads((directory / "config.json").read_text())["architecture"]
    assert described == {"image_size": 64, "latent_dim": 4, "group_norm": True, "output_bias": True}
    loaded = load_vae(directory)
    assert loaded.decoder.output_bias.shape == (1, 1, 64, 64)
    norms = [module for module in loaded.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert [norm.num_channels for norm in norms] == [8] * 7  # of channels 4, 4, 8, 8, 8, 8 and back


def test_the_first_reconstruction_is_the_mean_image(pixels):
    rows = np.arange(10)
    mean = mean_image(pixels, rows)
    np.testing.assert_allclose(mean, pixels.images[:10].mean(axis=0) / 255, atol=1e-6)
    model = VAE(64, 4, output_bias=True)
    center_on(model, mean)
    model.decoder.blocks[-1].weight.data.zero_()
    model.decoder.blocks[-1].bias.data.zero_()
    decoded = model.decoder(torch.zeros(1, 4))[0, 0]
    torch.testing.assert_close(decoded, mean, atol=1e-5, rtol=0)


def test_a_white_or_black_mean_stays_finite():
    model = VAE(64, 4, output_bias=True)
    center_on(model, torch.stack([torch.zeros(64), *[torch.ones(64)] * 63]))
    assert model.decoder.output_bias.isfinite().all()


def test_a_network_without_a_bias_cannot_be_centred():
    with pytest.raises(ValueError, match="has no output bias"):
        center_on(VAE(64, 4), torch.zeros(64, 64))


def test_the_cosine_rises_for_a_twentieth_and_falls_to_nothing():
    _, steps = model_and_steps(CONFIG.model_copy(update={"schedule": "cosine"}), 100)
    rates = [steps.lr_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(1e-3 / 5)
    assert max(rates) == rates[4]
    assert rates[50] == pytest.approx(1e-3 / 2)
    assert rates[99] == pytest.approx(1e-3 * 0.5 * (1 + math.cos(0.99 * math.pi)))
    assert model_and_steps(CONFIG, 100)[1].lr_at(99) == 1e-3


def test_the_history_has_the_rate_of_an_epochs_last_step(fit):
    directory, _ = fit(config=CONFIG.model_copy(update={"schedule": "cosine"}))
    history = pd.read_parquet(directory / "history.parquet")
    expected = [1e-3 * 0.5 * (1 + math.cos(math.pi * step / 8)) for step in (3, 7)]
    np.testing.assert_allclose(history["lr"], expected)


def test_without_weight_decay_it_is_adam_to_the_bit(fit, monkeypatch):
    def adam(weights, *, lr, weight_decay, fused):
        assert weight_decay == 0
        return torch.optim.Adam(weights, lr=lr, fused=fused)

    ours, _ = fit("ours", checkpoints="a")
    monkeypatch.setattr(torch.optim, "AdamW", adam)
    theirs, _ = fit("theirs", checkpoints="b")
    assert (ours / "vae.safetensors").read_bytes() == (theirs / "vae.safetensors").read_bytes()


def test_weight_decay_shrinks_by_its_share_of_the_rate():
    config = CONFIG.model_copy(update={"weight_decay": 0.5, "lr": 0.1})
    images = np.zeros((4, 64, 64), np.uint8)
    decayed, decaying_steps = model_and_steps(config, 1)
    plain, plain_steps = model_and_steps(config.model_copy(update={"weight_decay": 0.0}), 1)
    before = plain.encoder.to_mu.weight.detach().clone()
    for steps in (decaying_steps, plain_steps):
        steps.take(steps.first_state(), images, 4)
    lost = plain.encoder.to_mu.weight - decayed.encoder.to_mu.weight
    torch.testing.assert_close(lost.detach(), 0.1 * 0.5 * before, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradient_checkpointing_changes_nothing(fit, precision):
    plain = ALL.model_copy(update={"precision": precision})
    checkpointed = plain.model_copy(update={"gradient_checkpointing": True})
    weights = [
        fit(name, config, checkpoints=name)[0] / "vae.safetensors"
        for name, config in (("plain", plain), ("checkpointed", checkpointed))
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()
