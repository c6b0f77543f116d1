import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from cxrmodel.config import VAEConfig
from cxrmodel.errors import DivergedError
from cxrmodel.training.vae import step

pytestmark = pytest.mark.gpu

CONFIG = VAEConfig(epochs=3, batch_size=4, latent_dim=4, lr=1e-3, max_grad_norm=1.0)


class Interruption(BaseException):
    pass


@pytest.fixture
def poison(monkeypatch):
    """Make the gradients of some steps infinite, by the noise that is added to the latents."""

    def at(*steps):
        original = step.step_noise

        def noise(seed, step, shape, stream):
            return original(seed, step, shape) * (float("inf") if step in steps else 1.0)

        monkeypatch.setattr(step, "step_noise", noise)

    return at


def test_a_bad_step_is_skipped_and_counted(fit, poison):
    poison(5)
    directory, summary = fit(config=CONFIG)
    history = pd.read_parquet(directory / "history.parquet")
    assert history["skipped_steps"].tolist() == [0, 1, 0]
    assert history["step"].tolist() == [4, 8, 12]  # skipped ones count as steps
    assert np.isfinite(history.drop(columns="val_kl_nats_by_dim").to_numpy(float)).all()
    for weight in load_file(directory / "vae.safetensors").values():
        assert weight.isfinite().all()
    assert summary["skipped_steps"] == 0  # of the published epoch


def test_without_the_setting_a_bad_step_ends_the_training(fit, poison):
    poison(5)
    with pytest.raises(DivergedError, match="the train loss is nan"):
        fit(config=CONFIG.model_copy(update={"max_grad_norm": None}))


@pytest.mark.parametrize("step", [4, 6, 7, 9])
def test_a_training_with_skips_resumes_to_the_bit(fit, poison, report_every_step, step):
    poison(5, 6)
    unbroken, _ = fit("unbroken", CONFIG, checkpoints="a")

    def interrupt(progress):
        if progress.done >= step:
            raise Interruption

    with pytest.raises(Interruption):
        fit("broken", CONFIG, checkpoints="b", report=interrupt)
    resumed, _ = fit("broken", CONFIG, checkpoints="b")
    for name in ("vae.safetensors", "history.parquet"):
        assert (resumed / name).read_bytes() == (unbroken / name).read_bytes()


def test_a_training_that_only_skips_is_given_up(fit, poison, pixels):
    poison(*range(100))
    config = CONFIG.model_copy(update={"batch_size": 1})
    with pytest.raises(DivergedError, match=r"of this epoch's 1[1-4] steps had a gradient"):
        fit(config=config)


def test_a_long_gradient_is_cut_to_the_norm(fit, monkeypatch):
    norms = []
    original = torch.optim.AdamW.step

    def step(self, *args, **kwargs):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients]))))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    fit("free", CONFIG.model_copy(update={"max_grad_norm": 1e9}), checkpoints="a")
    longest = max(norms)
    norms.clear()
    fit("cut", CONFIG.model_copy(update={"max_grad_norm": longest / 10}), checkpoints="b")
    assert max(norms) == pytest.approx(longest / 10, rel=1e-4)
