"""A finished training on a tracking server, its alias there, and servers that fail."""

import json
import shutil
import socket
import time
from dataclasses import replace

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from cxrmodel import tracking
from cxrmodel.config import TrackingConfig
from cxrmodel.errors import TrackingError
from cxrmodel.inference.use_config import PromoteConfig
from cxrmodel.tracking import FinishedTraining, log_alias, log_training
from flows.promote import promote_bundle
from tests.servers.mlflow_server import ARTIFACTS, open_tracker

pytest.importorskip("mlflow", reason="pip install 'cxrmodel[mlflow]'")


@pytest.fixture
def tracker():
    with open_tracker() as found:
        yield found


@pytest.fixture
def config(tracker):
    return TrackingConfig(mlflow_uri=tracker.uri, name="chest")


@pytest.fixture(scope="module")
def training(finished):
    pipeline, run = finished
    return FinishedTraining(
        name="nih-patient-default",
        config={"vae": {"epochs": 2}},
        report=run.report.parent,
        bundle=next((pipeline.store / "bundle").iterdir()),
        places={"report": str(run.report)},
    )


@pytest.fixture
def within_server(prefect_env):
    settings = {PREFECT_API_URL: prefect_env["PREFECT_API_URL"]}
    with temporary_settings({**settings, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_training_is_logged_whole_and_once(tracker, config, training, finished, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    assert log_training(config, training) == "1"
    assert tracker.headers["Authorization"].startswith("Basic ")
    (run,) = tracker.runs.values()
    assert run["run_name"] == "nih-patient-default"
    assert tracker.status == {run["id"]: "FINISHED"}
    assert tracker.params == {"vae.epochs": "2"}
    metrics = finished[1].metrics
    assert tracker.metrics["macro_auroc"] == metrics["classifier"]["macro_auroc"]
    low, high = metrics["vae"]["intervals"]["test_l1"]
    assert (tracker.metrics["test_l1_low"], tracker.metrics["test_l1_high"]) == (low, high)
    for name, folder in (("report", training.report), ("bundle", training.bundle)):
        expected = {f"{name}/{file}": (folder / file).read_bytes() for file in files_of(folder)}
        assert {key: tracker.artifacts[key] for key in expected} == expected
    (version,) = tracker.versions
    assert version["name"] == "chest"
    assert version["source"].endswith(f"{run['id']}/artifacts/bundle")

    assert log_training(config, training) == "1"  # as of a run from the cache
    assert len(tracker.runs) == len(tracker.versions) == 1


def test_a_server_that_refuses_is_told_and_the_run_there_has_failed(tracker, config, training):
    tracker.refused = [ARTIFACTS]
    with pytest.raises(TrackingError, match=r"cannot be logged to .*403"):
        log_training(config, training)
    assert list(tracker.status.values()) == ["FAILED"]
    assert not tracker.versions
    tracker.refused = []
    assert log_training(config, training) == "1"
    assert list(tracker.status.values()) == ["FAILED", "FINISHED"]


@pytest.mark.parametrize("stored", ["sftp://127.0.0.1:9/runs", 3])
def test_a_server_whose_answers_cannot_be_used_is_told(
    tracker, config, training, stored, monkeypatch
):
    """Its artifacts are where no package of this installation can write, or it is no MLflow."""
    answer = tracker._run
    monkeypatch.setattr(
        tracker, "_run", lambda run_id: {"info": {**answer(run_id)["info"], "artifact_uri": stored}}
    )
    with pytest.raises(TrackingError, match="cannot be logged to"):
        log_training(config, training)


def test_more_numbers_than_one_request_may_have_are_logged(tracker, config, training, tmp_path):
    metrics = json.loads((training.report / "metrics.json").read_text())
    entry = next(iter(metrics["classifier"]["per_class"].values()))
    metrics["classifier"]["per_class"] = {f"finding {number}": entry for number in range(1100)}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    log_training(config, replace(training, report=tmp_path))
    assert {f"auroc/finding {number}" for number in range(1100)} <= set(tracker.metrics)


def test_an_alias_needs_a_tracked_bundle(tracker, config):
    with pytest.raises(TrackingError, match="no version of the model chest"):
        log_alias(config, "champion", "0" * 64)
    assert not tracker.aliases


def test_a_server_that_never_answers_costs_two_seconds(training):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = TrackingConfig(mlflow_uri=f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.thread_time(), time.monotonic()
        with pytest.raises(TrackingError, match="does not answer"):
            log_training(config, training)
        assert time.monotonic() - started[1] < 20  # minutes with the client's own limits
        assert time.thread_time() - started[0] < 2
    with pytest.raises(TrackingError, match="does not answer"):
        log_training(config, training)  # nobody listens now


def test_the_environment_is_as_before(tracker, config, training, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    log_training(config, training)
    left = {name: value for name, value in tracking.os.environ.items() if name.startswith("MLFLOW")}
    assert left == {"MLFLOW_HTTP_REQUEST_TIMEOUT": "7"}


def test_a_training_is_tracked_and_a_server_that_is_down_costs_a_warning(
    finished, tracker, tmp_path
):
    original, run = finished
    shutil.copytree(original.folder, tmp_path / "moved")
    pipeline = type(original)(**{**vars(original), "folder": tmp_path / "moved"})
    tracked = pipeline.run(f"--tracking.mlflow_uri={tracker.uri}")
    assert tracked.code == 0, tracked.stderr
    assert tracked.ran == {"track"}  # no stage: all cached
    assert len(tracker.versions) == 1
    assert tracker.params["images.size"] == "64"
    assert not any(name.startswith(("store", "runtime", "tracking")) for name in tracker.params)
    down = pipeline.run("--tracking.mlflow_uri=http://127.0.0.1:9")
    assert down.code == 0
    assert "The run is not tracked: http://127.0.0.1:9 does not answer" in down.stdout + down.stderr
    assert down.ran == {"track"}
    assert run.report.read_bytes() == tracked.report.read_bytes() == down.report.read_bytes()


def test_the_alias_follows_the_store(within_server, finished, training, tracker, config, tmp_path):
    log_training(config, training)
    store = {"root": str(tmp_path / "store"), "scratch": str(tmp_path / "scratch")}
    settings = {"device": "cpu", "store": store, "tracking": config}
    done = promote_bundle(PromoteConfig(**settings, challenger=str(training.bundle)))
    assert "promoted" in done
    assert tracker.aliases == {"champion": "1"}

    tracker.refused = ["/api/2.0/mlflow/registered-models/alias"]
    other = PromoteConfig(**settings, challenger=str(training.bundle), alias="staging")
    assert "promoted" in promote_bundle(other)  # a warning, and the store has it
    assert json.loads((tmp_path / "store/_aliases/staging.json").read_text())["digest"]
    assert tracker.aliases == {"champion": "1"}


def test_a_missing_client_is_told_before_any_work(monkeypatch, config):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'cxrmodel\[mlflow\]'"):
        tracking.check_tracking(config)
    tracking.check_tracking(TrackingConfig())
