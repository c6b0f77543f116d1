"""What a planned run needs, against numbers worked out by hand or measured."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cxrmodel.config import ImagesConfig, PipelineConfig, RuntimeConfig, StoreConfig, VAEConfig
from cxrmodel.models.vae import VAE
from flows.needs import Reading, reading, training
from tasks.engine.preview import Step

MEASURED = Path(__file__).parents[2] / "benchmarks" / "results.json"


def test_a_driver_without_a_gpu_can_plan_for_a_cluster_that_has_some(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    runtime = RuntimeConfig(device="cuda", ray_address="head:6379")
    vae = VAEConfig(batch_size="auto", precision="auto")
    config = PipelineConfig(vae=vae, images=ImagesConfig(size=64), runtime=runtime)
    needs = training(config)
    assert (needs.device, needs.precision) == ("cuda, of a Ray cluster", "auto")
    assert (needs.batch_size, needs.bytes_there) == (1, None)


def test_memory_is_near_what_the_benchmark_measured():
    vae = VAEConfig(batch_size=8, precision="bfloat16")
    needs = training(PipelineConfig(vae=vae, runtime=RuntimeConfig(device="cpu")))
    peak_gib = json.loads(MEASURED.read_text())["training"]["peak_memory_gib_batch_8"]
    assert needs.bytes / 2**30 == pytest.approx(peak_gib, rel=0.25)
    weights = 4 * sum(weight.numel() for weight in VAE(1024, 64).parameters())
    assert needs.checkpoint_bytes == 10 * weights
    assert (needs.device, needs.precision, needs.batch_size) == ("cpu", "bfloat16", 8)


@pytest.fixture
def index(tmp_path) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    pd.DataFrame({"bytes": np.array([10, 20, 30], np.int64)}).to_parquet(folder / "listing.parquet")
    return folder


def config(tmp_path: Path, **images) -> PipelineConfig:
    store = StoreConfig(root=str(tmp_path / "store"), scratch=str(tmp_path / "scratch"))
    return PipelineConfig(images=ImagesConfig(size=64, **images), store=store)


def test_only_what_a_stage_needs_is_read(tmp_path, index):
    cached = [Step("images", "cached"), Step("vae", "cached"), Step("classifier", "would run")]
    assert reading(config(tmp_path), cached, index) == Reading(0, 0, is_repeated=False)
    due = [*cached, Step("report", "unknown")]
    assert reading(config(tmp_path), due, index) == Reading(3, 60, is_repeated=False)
    on_the_fly = reading(config(tmp_path, cache=False), due, index)
    assert on_the_fly == Reading(3, 60, is_repeated=True)
