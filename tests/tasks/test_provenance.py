"""How much a stage has to do, and what its pace depends on, as manifests record it."""

import pytest
import torch

from cxrmodel.config import ClassifierConfig, ImagesConfig, RuntimeConfig, SplitConfig, VAEConfig
from cxrmodel.store import Artifact
from tasks.pixels import PixelSource
from tasks.provenance import num_images, pace, provenance
from tasks.vae import train_vae

INDEX = Artifact(stage="index", key="i", files={}, summary={"num_images": 90})
SPLIT = Artifact(
    stage="split", key="s", files={}, summary={"num_train": 60, "num_val": 14, "num_test": 15}
)


def test_images_are_counted_once_an_epoch():
    assert num_images({"config": VAEConfig(epochs=3), "split": SPLIT}) == 3 * 89
    assert num_images({"config": ClassifierConfig(epochs=2), "index": INDEX}) == 2 * 90
    assert num_images({"config": ImagesConfig(), "index": INDEX}) == 90
    assert num_images({"stages": {"split": SPLIT, "index": INDEX}}) == 89


def test_images_are_unknown_before_there_is_an_index():
    assert num_images({"config": SplitConfig()}) is None
    assert num_images({"index": Artifact(stage="index", key="", files={})}) is None


def test_pace_depends_on_hardware_and_a_few_settings():
    pixels = PixelSource("films", ImagesConfig(size=64), INDEX, INDEX)
    runtime = RuntimeConfig(device="cpu")
    inputs = {"config": VAEConfig(), "pixels": pixels, "split": SPLIT, "runtime": runtime}
    found = pace(inputs)
    assert found.keys() == {
        "machine", "size", "fit", "cache", "batch_size", "precision", "latent_dim"
    }  # fmt: skip
    assert found["size"] == 64
    assert found["machine"].endswith("cpu")
    other = {**inputs, "config": VAEConfig(epochs=99, lr=1, seed=7)}
    assert pace(other) == found
    assert pace({**inputs, "config": VAEConfig(batch_size=2)}) != found


def test_with_ray_the_device_is_not_looked_for_on_this_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    runtime = RuntimeConfig(device="cuda", ray_address="head:6379", ray_workers=2)
    inputs = {"config": VAEConfig(), "split": SPLIT, "runtime": runtime}
    assert provenance(train_vae.fn, inputs)["work"]["pace"]["machine"] == "Ray, 2 workers, cuda"
    with pytest.raises(ValueError, match=r"runtime\.device is 'cuda', and this machine has"):
        provenance(train_vae.fn, {**inputs, "runtime": RuntimeConfig(device="cuda")})
