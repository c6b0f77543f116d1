import logging

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from cxrmodel.config import VAEConfig
from cxrmodel.models import convolutions
from cxrmodel.models.vae import VAE
from cxrmodel.training.devices import is_out_of_memory
from cxrmodel.training.vae import auto_settings
from cxrmodel.training.vae.auto_settings import resolve_config
from cxrmodel.training.vae.objective import make_objective

pytestmark = pytest.mark.gpu

CONFIG = VAEConfig(epochs=2, batch_size=4, latent_dim=4, lr=1e-3)
CPU = torch.device("cpu")
L1_KL = make_objective(CONFIG)


@pytest.fixture
def room_for(monkeypatch):
    """Make the network run out of memory in training on more than some images at once."""

    def limit(num_images):
        forward = VAE.forward

        def limited(self, image, noise):
            if torch.is_grad_enabled() and len(image) > num_images:
                raise torch.OutOfMemoryError("tried to allocate 20.00 GiB")
            return forward(self, image, noise)

        monkeypatch.setattr(VAE, "forward", limited)

    return limit


def test_a_batch_that_does_not_fit_is_split(fit, room_for, caplog):
    whole, _ = fit("whole", checkpoints="a")
    room_for(1)
    with caplog.at_level(logging.WARNING):
        parts, summary = fit("parts", checkpoints="b")
    assert "Out of memory at step 1: a batch now goes through the network 2 images" in caplog.text
    assert "1 images at a time" in caplog.text
    assert summary["step"] == 8  # as many steps as with whole batches
    expected = load_file(whole / "vae.safetensors")
    for name, weight in load_file(parts / "vae.safetensors").items():
        np.testing.assert_allclose(weight, expected[name], atol=2e-4)
    histories = [pd.read_parquet(folder / "history.parquet") for folder in (whole, parts)]
    np.testing.assert_allclose(*(history["train_l1"] for history in histories), rtol=1e-4)


def test_too_little_memory_for_one_image_is_a_named_error(fit, room_for):
    room_for(0)
    with pytest.raises(MemoryError, match=r"one image of 64 pixels at a time. Lower images.size"):
        fit()


def test_another_error_is_not_taken_for_a_lack_of_memory(fit, monkeypatch):
    def broken(self, image, noise):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(VAE, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        fit()


def test_the_allocator_of_a_cpu_is_understood():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(error.value)


def test_what_a_step_saves_grows_with_the_pixels():
    model = VAE(64, 4)
    saved = auto_settings.saved_bytes(model, L1_KL, "float32")
    # Each convolution saves its input and each activation its own; hand-counted for one layer:
    first_map = 4 * 32 * 32 * 4  # channels, side, side, bytes
    assert saved > 2 * first_map
    assert auto_settings.saved_bytes(VAE(128, 4), L1_KL, "float32") == pytest.approx(
        4 * saved, rel=0.05
    )


def test_the_first_count_of_a_process_is_that_of_the_others():
    convolutions._is_usable.cache_clear()
    first, second = (auto_settings.saved_bytes(VAE(64, 4), L1_KL, "float32") for _ in range(2))
    assert first == second


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradient_checkpointing_saves_less(monkeypatch, precision):
    monkeypatch.setattr("cxrmodel.models.vae.CHANNELS", (1, 16, 32, 64, 128, 256, 256))
    models = [VAE(256, 4, gradient_checkpointing=is_on) for is_on in (False, True)]
    plain, checkpointed = (auto_settings.saved_bytes(model, L1_KL, precision) for model in models)
    assert checkpointed < 0.7 * plain


@pytest.mark.parametrize(("room_in_images", "batch"), [(0, 1), (1, 1), (9, 8), (1000, 64)])
def test_the_largest_power_of_two_that_fits(monkeypatch, room_in_images, batch):
    model = VAE(64, 4)
    weights = 16 * sum(weight.numel() for weight in model.parameters())
    image = auto_settings.STEP_FACTOR * auto_settings.saved_bytes(model, L1_KL, "float32")
    needed = (weights + room_in_images * image) / auto_settings.USABLE_SHARE
    monkeypatch.setattr(auto_settings, "memory_bytes", lambda device: needed)
    assert auto_settings.largest_batch(model, L1_KL, "float32") == batch


def test_the_machines_memory_is_within_reason():
    assert 1 << 28 < auto_settings.memory_bytes(CPU) < 1 << 50


def test_auto_scales_the_learning_rate_by_the_root_of_the_batch(monkeypatch):
    monkeypatch.setattr("cxrmodel.training.vae.auto_settings.largest_batch", lambda *_: 16)
    config = VAEConfig(batch_size="auto", lr=1e-4, latent_dim=4)
    resolved = resolve_config(config, 64, CPU, "float32")
    assert (resolved.batch_size, resolved.lr) == (16, 4e-4)
    given = resolve_config(VAEConfig(batch_size=16, lr=1e-4), 64, CPU, "float32")
    assert (given.batch_size, given.lr) == (16, 1e-4)


def test_auto_keeps_its_value_when_training_continues_elsewhere(fit, monkeypatch, tmp_path):
    config = VAEConfig(epochs=2, batch_size="auto", latent_dim=4, lr=1e-3)
    monkeypatch.setattr("cxrmodel.training.vae.auto_settings.largest_batch", lambda *_: 4)
    unbroken, summary = fit("unbroken", config, checkpoints="a")
    assert summary["batch_size"] == 4

    class Interruption(BaseException):
        pass

    def interrupt(progress):
        raise Interruption

    with monkeypatch.context() as patch, pytest.raises(Interruption):
        patch.setattr("cxrmodel.training.speed.REPORT_EVERY_S", 0.0)
        fit("moved", config, checkpoints="b", report=interrupt)
    monkeypatch.setattr("cxrmodel.training.vae.auto_settings.largest_batch", lambda *_: 8)
    moved, summary = fit("moved", config, checkpoints="b")
    assert summary["batch_size"] == 4
    name = "vae.safetensors"
    assert (moved / name).read_bytes() == (unbroken / name).read_bytes()
