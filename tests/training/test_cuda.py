"""What only a GPU can show; everything else that is marked `gpu` runs on a CPU as well."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from cxrmodel.config import LatentsConfig, VAEConfig
from cxrmodel.training.batches import to_device
from cxrmodel.training.devices import deterministic_kernels
from cxrmodel.training.encoding import Coder
from cxrmodel.training.latents import extract_latents
from cxrmodel.training.vae.fit import load_vae
from cxrmodel.training.vae.settings import ResolvedVAEConfig
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


def steps_on(device, size, **settings):
    defaults = {"batch_size": 4, "latent_dim": 64, "precision": "float32"}
    config = ResolvedVAEConfig(**defaults | settings)
    return VAESteps(config, size, 1_000, device, ALONE)


def weights_after(steps, images, num_steps):
    for _ in range(num_steps):
        steps.take(images, len(images))
    return [weight.detach().clone() for weight in steps.model.parameters()]


@pytest.fixture
def large_films():
    return np.random.default_rng(0).integers(0, 256, (4, 1024, 1024), np.uint8)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("options", [{}, OPTIONS, {"gradient_checkpointing": True}])
def test_the_real_network_repeats_itself_to_the_bit(
    cuda, large_films, monkeypatch, precision, options
):
    monkeypatch.setattr("cxrmodel.models.vae.CHANNELS", CHANNELS)
    with deterministic_kernels(cuda):
        first, second = (
            weights_after(steps_on(cuda, 1024, precision=precision, **options), large_films, 3)
            for _ in range(2)
        )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_lack_of_memory_halves_the_batch(cuda, large_films, monkeypatch, caplog):
    monkeypatch.setattr("cxrmodel.models.vae.CHANNELS", CHANNELS)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    steps = steps_on(cuda, 1024)
    steps.take(large_films[:1], 1)
    torch.cuda.synchronize()
    one_image = torch.cuda.max_memory_allocated()
    steps = None
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(cuda).total_memory
    torch.cuda.set_per_process_memory_fraction(1.3 * one_image / total)
    try:
        steps = steps_on(cuda, 1024)
        steps.take(large_films, 4)
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
        there = steps_on(cuda, 128)
        means = there._backward(images, there._draw(4), 1.0)
    here = steps_on(torch.device("cpu"), 128)
    expected = here._backward(images, here._draw(4), 1.0)
    torch.testing.assert_close(means.cpu(), expected, rtol=1e-4, atol=1e-6)
    pairs = zip(there.model.parameters(), here.model.parameters(), strict=True)
    for ours, theirs in pairs:
        error = (ours.grad.cpu() - theirs.grad).norm() / theirs.grad.norm()
        assert error < 1e-3


def test_a_batch_arrives_as_it_was(cuda, large_films):
    image = to_device(large_films, cuda)
    assert image.dtype == torch.float32
    assert torch.equal((image.cpu() * 255).round().to(torch.uint8)[:, 0], torch.tensor(large_films))


def test_a_network_trained_there_encodes_alike_on_a_cpu(cuda, fit, films, split, tmp_path):
    directory, _ = fit()
    tables = []
    for device in ("cuda", "cpu"):
        folder = tmp_path / f"latents-{device}"
        folder.mkdir()
        extract_latents(
            LatentsConfig(batch_size=4), directory, films, split, folder, parts=folder / "parts",
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


def test_encoding_does_not_depend_on_the_batch(cuda, fit, films):
    directory, _ = fit()
    coder = Coder(load_vae(directory), cuda, "float32")
    whole, _ = coder.encode(coder.load(films.images))
    single = torch.cat([coder.encode(coder.load(image[None]))[0] for image in films.images])
    torch.testing.assert_close(whole, single, rtol=5e-3, atol=5e-3)
