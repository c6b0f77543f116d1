"""What made a result, as its manifest records it."""

import pytest
import torch

from cxrmodel.config import RuntimeConfig, VAEConfig
from tasks.engine.provenance import provenance
from tasks.vae import train_vae


def test_the_machine_is_named():
    inputs = {"config": VAEConfig(), "runtime": RuntimeConfig(device="cpu")}
    made_by = provenance(train_vae.fn, inputs)
    assert made_by["machine"].endswith(f"{torch.get_num_threads()} threads, cpu")
    assert made_by["packages"]["torch"] == torch.__version__


def test_with_ray_the_device_is_not_looked_for_on_this_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    runtime = RuntimeConfig(device="cuda", ray_address="head:6379", ray_workers=2)
    inputs = {"config": VAEConfig(), "runtime": runtime}
    assert provenance(train_vae.fn, inputs)["machine"] == "Ray, 2 workers, cuda"
    with pytest.raises(ValueError, match=r"The device is 'cuda', and this machine has"):
        provenance(train_vae.fn, {**inputs, "runtime": RuntimeConfig(device="cuda")})
