"""What only a GPU can show; everything else that is marked `gpu` runs on a CPU as well."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from cxrmodel.config import LatentsConfig, VAEConfig
from cxrmodel.training.devices import deterministic_kernels
from cxrmodel.training.encoding import Coder, load_vae
from cxrmodel.training.image_batches import to_device
from cxrmodel.training.latents import extract_latents
from cxrmodel.training.vae.auto_settings import ResolvedVAEConfig
from cxrmodel.training.vae.objective import make_objective
from cxrmodel.training.vae.state import initial_vae
from cxrmodel.training.vae.step import VAESteps
from cxrmodel.training.vae.world import ALONE

pytestmark = pytest.mark.gpu

CHANNELS = (1, 16, 32, 64, 128, 256, 256)
CONFIG = VAEConfig(epochs=2, batch_size=4, latent_dim=4, lr=1e-3)
OPTIONS = {"group_norm": True, "mean_image": True, "augmentation": 1.0, "max_grad_norm": 1.0}


@pytest.fixture
def cuda(device):
    where = torch.device(device)
    if where.type != "cuda":
        pytest.skip("needs a GPU: pytest -m gpu --device cuda")
    return where


def model_and_steps(device, size, **settings):
    defaults = {"batch_size": 4, "latent_dim": 64, "precision": "float32"}
    config = ResolvedVAEConfig(**defaults | settings)
    model = initial_vae(config, size, device)
    return model, VAESteps(config, make_objective(config), model, 1_000, ALONE)


def weights_after(num_steps, images, model, steps):
    state = steps.first_state()
    for _ in range(num_steps):
        state = steps.take(state, images, len(images))
    return [weight.detach().clone() for weight in model.parameters()]


@pytest.fixture
def large_images():
    return np.random.default_rng(0).integers(0, 256, (4, 1024, 1024), np.uint8)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("options", [{}, OPTIONS, {"gradient_checkpointing": True}])
def test_the_real_network_repeats_itself_to_the_bit(
    cuda, large_images, monkeypatch, precision, options
):
    monkeypatch.setattr("cxrmodel.models.vae.CHANNELS", CHANNELS)
    with deterministic_kernels(cuda):
        first, second = (
            weights_after(
                3, large_images, *model_and_steps(cuda, 1024, precision=precision, **options)
            )
            for _ in range(2)
        )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_lack_of_memory_halves_the_batch(cuda, large_images, monkeypatch, caplog):
    monkeypatch.setattr("cxrmodel.models.vae.CHANNELS", CHANNELS)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    _, steps = model_and_steps(cuda, 1024)
    steps.take(steps.first_state(), large_images[:1], 1)
    torch.cuda.synchronize()
    one_image = torch.cuda.max_memory_allocated()
    steps = None
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(cuda).total_memory
    torch.cuda.set_per_process_memory_fraction(1.3 * one_image / total)
    try:
        _, steps = model_and_steps(cuda, 1024)
        steps.take(steps.first_state(), large_images, 4)
        assert steps.micro_batch < 4
        assert "Out of memory at step 1" in caplog.text
        assert steps.are_finite()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_one_step_is_that_of_the_cpu(cuda, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr("cxrmodel.models.vae.CHANNELS", CHANNELS)
    images = np.random.default_rng(0).integers(0, 256, (4, 128, 128), np.uint8)
    with deterministic_kernels(cuda):
        there, steps = model_and_steps(cuda, 128)
        means = steps._backward(0, images, steps._draw(0, 4), 1.0)
    here, steps = model_and_steps(torch.device("cpu"), 128)
    expected = steps._backward(0, images, steps._draw(0, 4), 1.0)
    torch.testing.assert_close(means.cpu(), expected, rtol=1e-4, atol=1e-6)
    pairs = zip(there.parameters(), here.parameters(), strict=True)
    for ours, theirs in pairs:
        error = (ours.grad.cpu() - theirs.grad).norm() / theirs.grad.norm()
        assert error < 1e-3


def test_a_batch_arrives_as_it_was(cuda, large_images):
    image = to_device(large_images, cuda)
    assert image.dtype == torch.float32
    assert torch.equal(
        (image.cpu() * 255).round().to(torch.uint8)[:, 0], torch.tensor(large_images)
    )


def test_a_network_trained_there_encodes_alike_on_a_cpu(cuda, fit, pixels, split, tmp_path):
    directory, _ = fit()
    tables = []
    for device in ("cuda", "cpu"):
        folder = tmp_path / f"latents-{device}"
        folder.mkdir()
        extract_latents(
            LatentsConfig(batch_size=4), directory, pixels, split, folder, parts=folder / "parts",
            device=device,
        )  # fmt: skip
        tables.append(pd.read_parquet(folder / "latents.parquet").filter(regex="mu_|logvar_|l1"))
    np.testing.assert_allclose(*tables, rtol=5e-3, atol=5e-3)


def test_a_training_moves_from_there_to_a_cpu_and_back(cuda, fit, report_every_step):
    class Interruption(BaseException):
        pass

    def interrupt(progress):
        if progress.done >= 3:
            raise Interruption

    with pytest.raises(Interruption):
        fit("moved", CONFIG, checkpoints="c", report=interrupt)
    moved, summary = fit("moved", CONFIG, checkpoints="c", where="cpu")
    stayed, _ = fit("stayed", CONFIG, checkpoints="d")
    assert summary["device"] == "cpu"
    expected = load_file(stayed / "vae.safetensors")
    for name, weight in load_file(moved / "vae.safetensors").items():
        torch.testing.assert_close(weight, expected[name], atol=5e-3, rtol=0)


def test_encoding_does_not_depend_on_the_batch(cuda, fit, pixels):
    directory, _ = fit()
    coder = Coder(load_vae(directory), cuda, "float32")
    whole, _ = coder.encode(coder.load(pixels.images))
    single = torch.cat([coder.encode(coder.load(image[None]))[0] for image in pixels.images])
    torch.testing.assert_close(whole, single, rtol=5e-3, atol=5e-3)
