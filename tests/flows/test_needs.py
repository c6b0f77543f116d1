"""What a planned run needs, against numbers worked out by hand or measured."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cxrmodel.config import ImagesConfig, PipelineConfig, RuntimeConfig, StoreConfig, VAEConfig
from cxrmodel.models.vae import VAE
from flows.needs import Reading, expected_seconds, reading, training
from tasks.plan import Step

MEASURED = Path(__file__).parents[2] / "benchmarks" / "results.json"
PACE = {"machine": "one core", "size": 64, "precision": "float32"}


def measured(store: Path, stage: str, key: str, seconds: float, images: int, **pace) -> None:
    (store / stage / key).mkdir(parents=True)
    work = {"images": images, "pace": {**PACE, **pace}}
    manifest = {"seconds": seconds, "provenance": {"work": work}}
    (store / stage / key / "manifest.json").write_text(json.dumps(manifest))


def step(stage: str, images: int | None) -> Step:
    return Step(stage, "would run", "", images, PACE)


def test_time_is_that_of_the_slowest_comparable_run(tmp_path):
    measured(tmp_path, "vae", "a", seconds=50, images=100)
    measured(tmp_path, "vae", "b", seconds=8, images=100)  # it went on from a checkpoint
    measured(tmp_path, "vae", "c", seconds=900, images=100, machine="another")
    measured(tmp_path, "vae", "d", seconds=900, images=100, precision="bfloat16")
    assert expected_seconds(str(tmp_path), step("vae", 1000)) == 500


def test_time_is_unknown_where_nothing_comparable_was_measured(tmp_path):
    measured(tmp_path, "vae", "a", seconds=50, images=100, size=128)
    assert expected_seconds(str(tmp_path), step("vae", 1000)) is None
    assert expected_seconds(str(tmp_path), step("latents", 1000)) is None
    assert expected_seconds(str(tmp_path), step("vae", None)) is None
    old = tmp_path / "vae" / "old"
    old.mkdir()
    (old / "manifest.json").write_text(json.dumps({"seconds": 1, "provenance": {}}))
    assert expected_seconds(str(tmp_path), step("vae", 1000)) is None


def test_time_of_a_stage_that_does_not_grow_with_images_needs_a_run_of_like_size(tmp_path):
    measured(tmp_path, "report", "a", seconds=50, images=100)
    assert expected_seconds(str(tmp_path), step("report", 200)) == 100
    assert expected_seconds(str(tmp_path), step("report", 201)) is None


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
