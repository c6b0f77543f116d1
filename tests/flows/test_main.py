"""The pipeline as a user starts it: results, errors in plain words, kills, a bucket."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import fsspec
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)
from safetensors.numpy import load_file

from cxrmodel.config import (
    ClassifierConfig,
    DataConfig,
    ImagesConfig,
    PipelineConfig,
    ReportConfig,
    SplitConfig,
    Stage,
    StoreConfig,
    VAEConfig,
)
from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.storage.store import Store
from flows.main import train_pipeline
from tests.flows.conftest import Pipeline, Run
from tests.servers.s3 import client_of, s3_server

METRICS = {
    "data": {"num_images", "num_excluded", "fingerprint"},
    "split": {"method", "num_train", "num_val", "num_test", "leaking_test_fraction"},
    "vae": {"val_l1", "test_l1", "test_psnr", "kl_nats", "active_units", "epochs"},
    "classifier": {
        "macro_f1_at_0_5",
        "macro_f1",
        "macro_auroc",
        "macro_average_precision",
        "per_class",
    },
    "baselines": {"all_positive", "pca_logistic"},
    "timings_s": {"index", "images", "split", "vae", "latents", "classifier"},
    "provenance": {"code", "config", "packages"},
}
PER_CLASS = {"auroc", "average_precision", "f1", "f1_at_0_5", "threshold", "num_positive"}


def test_a_run_without_a_server_from_any_directory(pipeline_of, tmp_path):
    served = pipeline_of(tmp_path / "run")
    alone = replace(served, env={"PREFECT_HOME": str(tmp_path / "prefect")}, preloaded=None)
    run = alone.run()
    assert run.code == 0, run.stderr
    assert run.report.is_file()
    assert "macro_auroc:" in run.stdout
    for section, names in METRICS.items():
        assert names <= run.metrics[section].keys()
    classifier = run.metrics["classifier"]
    assert {*classifier["per_class"], *classifier["labels_left_out"]} == set(PATHOLOGIES)
    for row in run.metrics["classifier"]["per_class"].values():
        assert row.keys() >= PER_CLASS
    assert run.metrics["split"]["leaking_test_fraction"] == 0
    assert not any((alone.scratch / "drafts").iterdir())
    assert not any((alone.scratch / "work").iterdir())


def test_a_root_that_does_not_exist_is_named_last(pipeline_of, tmp_path):
    missing = tmp_path / "nowhere"
    run = replace(pipeline_of(tmp_path), data=str(missing)).run()
    assert run.code == 1
    assert run.stderr.strip().splitlines()[-1].startswith("error: ")
    assert str(missing) in run.stderr.strip().splitlines()[-1]


def test_impossible_settings_are_named_before_anything_starts(pipeline_of, tmp_path):
    run = pipeline_of(tmp_path).run("--vae.lr=-1")
    assert run.code == 2
    assert run.stderr == "error: --vae.lr: Input should be greater than 0, got '-1'\n"


def test_an_objective_that_is_not_there_is_told_before_the_data_set_is_read(tmp_path):
    """Of a deployment's form, which no command line has checked."""
    config = PipelineConfig(
        data=DataConfig(root=str(tmp_path / "nowhere")), vae=VAEConfig(objective="l1kl")
    )
    with pytest.raises(ValueError, match=r"vae\.objective: 'l1kl' is not one of l1_kl; did you"):
        train_pipeline.fn(config)


def test_divergence_is_named_last(pipeline_of, tmp_path):
    run = pipeline_of(tmp_path).run("--vae.lr=1e30")
    assert run.code == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "vae.lr" in last


def test_a_killed_training_goes_on_where_it_was(pipeline_of, tmp_path):
    whole, killed = pipeline_of(tmp_path / "whole"), pipeline_of(tmp_path / "killed")
    run_until(whole, "store/vae/*/manifest.json")
    run_until(killed, "scratch/work/vae-*/*.safetensors", then_s=0.5)
    assert list(killed.scratch.glob("work/vae-*/*.safetensors")), "it had finished before the kill"

    run = run_until(killed, "store/vae/*/manifest.json")
    assert "Training goes on after step" in run.stderr
    assert [run.states[stage] for stage in ("index", "images", "split")] == ["Cached"] * 3
    resumed, unbroken = weights(killed.store), weights(whole.store)
    assert resumed.keys() == unbroken.keys()
    for name, tensor in resumed.items():
        assert (tensor == unbroken[name]).all(), name


def run_until(pipeline: Pipeline, made: str, then_s: float = 0.0) -> Run:
    """Kill a run some time after a file is there."""
    # One thread: their number else depends on what runs beside it, and the bits on their number.
    settings = "--vae.epochs=10", "--vae.checkpoint_every_s=0.05", "--runtime.num_threads=1"
    process = pipeline.start(*settings)
    deadline = time.monotonic() + 300
    while not list(pipeline.folder.glob(made)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(then_s)
    process.kill()
    stdout, stderr = process.communicate()
    return Run(process.returncode, stdout, stderr)


def weights(store: Path):
    (path,) = store.glob("vae/*/vae.safetensors")
    return load_file(path)


@pytest.fixture
def within_server(prefect_env):
    settings = {PREFECT_API_URL: prefect_env["PREFECT_API_URL"]}
    with temporary_settings({**settings, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def test_the_flow_is_a_plain_function_call_and_a_split_by_rows_leaks_and_says_so(
    within_server, images, tmp_path, caplog
):
    config = PipelineConfig(
        data=DataConfig(root=str(images)),
        images=ImagesConfig(size=64),
        split=SplitConfig(method="rows"),
        vae=VAEConfig(epochs=1, batch_size=8, lr=1e-3),
        classifier=ClassifierConfig(epochs=2),
        report=ReportConfig(num_reconstructions=1, tsne_points=50),
        store=StoreConfig(root=str(tmp_path / "store"), scratch=str(tmp_path / "scratch")),
    )
    report, _ = train_pipeline(config)
    folder = Store(config.store.root, config.store.scratch).directory(report)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["data"]["num_images"] == 90
    share = metrics["split"]["leaking_test_fraction"]
    assert share > 0
    assert f"{100 * share:.1f} % of the test images are of a patient" in caplog.text


@pytest.fixture
def bucket(images, monkeypatch):
    """URL of a bucket that holds the images, on an S3 server over HTTP."""
    with s3_server() as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        client = client_of(env)
        client.create_bucket(Bucket="cxr-images")
        for path in images.rglob("*"):
            if path.is_file():
                key = f"data/{path.relative_to(images).as_posix()}"
                client.upload_file(str(path), "cxr-images", key)
        yield "s3://cxr-images"


def test_a_bucket_gives_the_same_result_as_a_folder(bucket, pipeline_of, finished, tmp_path):
    _, local = finished
    remote = replace(
        pipeline_of(tmp_path / "remote"), data=f"{bucket}/data", store_url=f"{bucket}/store"
    )
    run = remote.run()
    assert run.code == 0, run.stderr
    assert run.stdout.strip().splitlines()[-1].startswith(f"report: {bucket}/store/report/")
    store = Store(f"{bucket}/store", tmp_path / "fetched")
    assert metrics_in(store)["classifier"] == local.metrics["classifier"]
    assert metrics_in(store)["data"] == local.metrics["data"]
    assert remote.run("--dry-run").stdout.count(" cached\n") == len(get_args(Stage))
    assert remote.run().ran == set()


def test_images_that_are_all_the_same_have_no_principal_components_to_learn_from(
    pipeline_of, tmp_path
):
    root = tmp_path / "data"
    root.mkdir()
    grey = np.add.outer(np.arange(64), 2 * np.arange(64)).astype(np.uint8)
    rows = [(f"{number}.png", f"p{number}", number % 3 == 0) for number in range(40)]
    for name, *_ in rows:
        Image.fromarray(grey).save(root / name)
    table = pd.DataFrame(rows, columns=["image", "patient_id", "Effusion"])
    table.astype({"Effusion": int}).to_csv(root / "table.csv", index=False)
    run = replace(pipeline_of(tmp_path / "run"), data=str(root)).run("--data.dataset=table")
    assert run.code == 0, run.stderr
    assert "pca_network" in run.ran
    assert "pca_logistic" in run.metrics["baselines"]
    assert "pca_network" not in run.metrics["baselines"]


def metrics_in(store: Store):
    file_system, path = fsspec.core.url_to_fs(store.root)
    (found,) = file_system.glob(f"{path}/report/*/metrics.json")
    return json.loads(file_system.cat_file(found))
