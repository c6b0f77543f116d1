"""What `--dry-run` says, and that the run which follows does just that."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch

from cxrmodel.config import (
    DataConfig,
    ImagesConfig,
    PipelineConfig,
    RuntimeConfig,
    SplitConfig,
    Stage,
    StoreConfig,
    VAEConfig,
)
from cxrmodel.errors import DataError
from cxrmodel.models.vae import VAE
from cxrmodel.phantom import write_phantoms
from cxrmodel.storage.layout import LISTING_FILE
from flows.dry_run import Reading, describe_run, reading, training
from flows.main import run_stages
from tasks.engine.preview import Step

MEASURED = Path(__file__).parents[2] / "benchmarks" / "results.json"
STEP = re.compile(r"^(\w+) +(cached|would run|unknown)(?:: (.*))?$", re.MULTILINE)
STAGES = {*get_args(Stage)}


def planned(run) -> dict[str, tuple[str, str]]:
    """State and reason of each stage, by name."""
    assert run.code == 0, run.stderr
    return {name: (state, reason) for name, state, reason in STEP.findall(run.stdout)}


def agree(plan, run) -> None:
    """Nothing that was called cached ran, and everything that would run did."""
    assert plan.keys() == STAGES
    assert run.code == 0, run.stderr
    states = {name: state for name, (state, _) in plan.items()}
    assert {name for name, state in states.items() if state == "would run"} <= run.ran
    assert {name for name, state in states.items() if state == "cached"}.isdisjoint(run.ran)


def one(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


def test_before_the_first_run(finished, tmp_path):
    original, run = finished
    pipeline = replace(original, folder=tmp_path / "run")
    dry = pipeline.run("--dry-run")
    assert {state for state, _ in planned(dry).values()} == {"would run"}
    agree(planned(dry), run)
    assert "90 files" in dry.stdout
    assert "image_missing" in dry.stdout
    num_test = run.metrics["split"]["num_test"]
    assert f"{num_test} test, by patient; an estimate, as if" in dry.stdout
    assert not pipeline.store.exists()
    assert not pipeline.scratch.exists()


def test_after_a_run_and_after_changes_and_damage(finished, tmp_path):
    original, _ = finished
    pipeline = replace(original, folder=tmp_path / "moved")
    shutil.copytree(original.folder, pipeline.folder)
    kept = sorted(tmp_path.rglob("*"))
    dry = pipeline.run("--dry-run")
    assert {state for state, _ in planned(dry).values()} == {"cached"}
    assert "nothing: what is needed is decoded" in dry.stdout
    assert "an estimate, as if" not in dry.stdout
    assert sorted(tmp_path.rglob("*")) == kept

    one(pipeline.store, "split/*/manifest.json").unlink()
    latents = one(pipeline.store, "latents/*/latents.parquet")
    latents.write_bytes(latents.read_bytes()[:100])
    changes = ("--classifier.lr=0.01", "--refresh", "baselines")
    plan = planned(pipeline.run("--dry-run", *changes))
    assert plan["split"][0] == plan["latents"][0] == "would run"
    assert "manifest.json is missing" in plan["split"][1]
    assert "has 100 bytes instead of" in plan["latents"][1]
    assert plan["baselines"] == ("would run", "asked by --refresh")
    assert plan["classifier"] == ("unknown", "until latents has run")
    assert plan["report"][0] == "unknown"
    assert plan["index"][0] == plan["images"][0] == plan["vae"][0] == "cached"
    run = pipeline.run(*changes)
    agree(plan, run)
    assert run.ran == {
        "split", "latents", "baselines", "classifier", "pca_network", "report", "bundle"
    }  # fmt: skip


def settings(folder, root, **sections) -> PipelineConfig:
    return PipelineConfig(
        data=DataConfig(root=root, phantom_images=60),
        images=ImagesConfig(size=64),
        store=StoreConfig(root=str(folder / "store"), scratch=str(folder / "scratch")),
        **sections,
    )


def test_synthetic_images_not_drawn_yet_are_not_drawn(tmp_path):
    text = describe_run(settings(tmp_path, "phantom"), (), run_stages)
    assert [state for _, state, _ in STEP.findall(text)] == ["would run"] * len(STAGES)
    assert "60 synthetic ones, to be drawn first" in text
    assert not list(tmp_path.iterdir())


def test_synthetic_images_that_are_drawn_are_planned_for_like_others(tmp_path):
    drawn = tmp_path / "scratch" / "phantom" / "60"
    write_phantoms(drawn, 60, size_px=64)
    text = describe_run(settings(tmp_path, "phantom"), (), run_stages)
    assert [state for _, state, _ in STEP.findall(text)] == ["would run"] * len(STAGES)
    assert "images      60 in phantom" in text
    assert "scratch     240.0 KiB for pixels" in text  # 60 images of 64 * 64 bytes
    assert not (tmp_path / "store").exists()
    assert sorted((tmp_path / "scratch").iterdir()) == [drawn.parent]


def test_a_table_of_parts_is_read_and_what_it_leaves_out_is_counted(tmp_path):
    write_phantoms(tmp_path / "films", 60, size_px=64)
    there = {path.name for path in (tmp_path / "films").rglob("*.png")}
    train_val, test = (
        [name for name in path.read_text().split() if name in there]
        for path in (tmp_path / "films" / f"{part}_list.txt" for part in ("train_val", "test"))
    )
    rows = [(name, "train_val") for name in train_val[1:]] + [(name, "test") for name in test]
    parts = tmp_path / "parts.csv"
    pd.DataFrame(rows, columns=["file", "subset"]).to_csv(parts, index=False)
    split = SplitConfig(method="file", file=str(parts))
    text = describe_run(settings(tmp_path, str(tmp_path / "films"), split=split), (), run_stages)
    assert f"{len(test)} test, 1 without a part, by file; an estimate" in text
    assert "its column `file` is read as the image, and `subset` as the part." in text
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "films", parts])


def test_a_data_set_that_is_not_there_is_the_error_of_a_run(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        describe_run(settings(tmp_path, str(tmp_path / "nowhere")), (), run_stages)
    assert not list(tmp_path.iterdir())


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
    processors = json.loads(MEASURED.read_text())["processors"].values()
    trained = [
        measured["training"]
        for measured in processors
        # A build of PyTorch for GPUs loads half a gibibyte of libraries more.
        if "training" in measured and measured["versions"]["torch"].endswith("+cpu")
    ]
    assert trained
    for training_figures in trained:
        peak_gib = training_figures["peak_memory_gib_batch_8"]
        assert needs.bytes / 2**30 == pytest.approx(peak_gib, rel=0.25)
    weights = 4 * sum(weight.numel() for weight in VAE(1024, 64).parameters())
    assert needs.checkpoint_bytes == 10 * weights
    assert (needs.device, needs.precision, needs.batch_size) == ("cpu", "bfloat16", 8)


@pytest.fixture
def index(tmp_path) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    pd.DataFrame({"bytes": np.array([10, 20, 30], np.int64)}).to_parquet(folder / LISTING_FILE)
    return folder


def config(tmp_path: Path, **images) -> PipelineConfig:
    store = StoreConfig(root=str(tmp_path / "store"), scratch=str(tmp_path / "scratch"))
    return PipelineConfig(images=ImagesConfig(size=64, **images), store=store)


def test_only_what_a_stage_needs_is_read(tmp_path, index):
    cached = [
        Step("images", "cached"),
        Step("vae", "cached", reads_pixels=True),
        Step("classifier", "would run"),
    ]
    assert reading(config(tmp_path), cached, index) == Reading(0, 0, is_repeated=False)
    due = [*cached, Step("report", "unknown", reads_pixels=True)]
    assert reading(config(tmp_path), due, index) == Reading(3, 60, is_repeated=False)
    on_the_fly = reading(config(tmp_path, cache=False), due, index)
    assert on_the_fly == Reading(3, 60, is_repeated=True)
