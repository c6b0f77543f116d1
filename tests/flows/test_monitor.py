"""Monitoring as a user and a server run it."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)

from cxrmodel.errors import DataError
from cxrmodel.inference.use_config import MonitorConfig
from flows.flags import read_flags
from flows.monitor import monitor_scores
from tests.monitoring.scored import images, write_bundle, write_root, write_scores

PROJECT = Path(__file__).parents[2]
NUM = 160


@pytest.fixture(autouse=True)
def within_server(prefect_env):
    settings = {PREFECT_API_URL: prefect_env["PREFECT_API_URL"]}
    with temporary_settings({**settings, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


@pytest.fixture
def events(monkeypatch):
    """What the task tells the server."""
    sent = []

    def keep(event, resource, payload):
        sent.append({"event": event, "resource": resource, "payload": payload})

    monkeypatch.setattr("tasks.monitor.emit_event", keep)
    return sent


@pytest.fixture
def settings(tmp_path):
    """Settings of a store of the test's own, where scores have drifted."""
    bundle, root = write_bundle(tmp_path / "bundle"), tmp_path / "root"
    table = write_root(root, NUM)
    rows = images(NUM, seed=8, shift=1.5)
    write_scores(tmp_path / "store" / "_scores", bundle, rows, list(table["image"]), root)
    return {
        "bundle": str(bundle),
        "data": {"root": str(root), "dataset": "table"},
        "store": {"root": str(tmp_path / "store"), "scratch": str(tmp_path / "scratch")},
    }


def test_drift_is_told_once_by_an_event_and_shown_in_the_page(settings, events):
    config = MonitorConfig(**settings)
    done = monitor_scores(config)
    assert done["drift"].startswith("The window has drifted (")
    assert "<h1>Drift in 160 scored images</h1>" in Path(done["page"]).read_text("utf-8")
    (sent,) = events
    assert sent["event"] == "cxrmodel.drift"
    assert sent["resource"]["prefect.resource.id"].startswith("cxrmodel.bundle.")
    assert sent["payload"]["is_drift"] is True
    assert Path(sent["payload"]["location"], "drift.html") == Path(done["page"])
    assert monitor_scores(config)["window"].endswith(", the same as before")
    assert len(events) == 1
    with get_client(sync_client=True) as client:
        (shown, *_) = client.read_artifacts(artifact_filter=ArtifactFilter(key={"any_": ["drift"]}))
    assert "mu_00" in str(shown.data)
    assert shown.description.endswith(done["page"])


def test_what_tells_nobody_of_drift(settings, events, tmp_path):
    few = monitor_scores(MonitorConfig(**settings, newest=10))
    assert list(few) == ["not tested"]
    alike = tmp_path / "alike"
    rows = images(NUM, seed=8)
    names = [f"{row}.png" for row in range(NUM)]
    write_scores(alike, Path(settings["bundle"]), rows, names, "/images")
    done = monitor_scores(
        MonitorConfig(bundle=settings["bundle"], store=settings["store"], scores=str(alike))
    )
    assert done["drift"].startswith("No drift was found")
    assert not events
    with pytest.raises(DataError, match=r"Run flows/score\.py with this bundle first"):
        monitor_scores(MonitorConfig(**settings, scores=str(tmp_path / "nothing")))


def test_the_command_of_the_page_runs(settings, prefect_env, tmp_path):
    """That of docs/operate.md, as it stands there."""
    text = (PROJECT / "docs/operate.md").read_text("utf-8")
    (command,) = re.findall(r"^python (flows/monitor\.py .*)$", text, re.MULTILINE)
    words = {"s3://images/new": settings["data"]["root"], "s3://models/cxr": "STORE"}
    program, *given = [words.get(word, word) for word in shlex.split(command, comments=True)]
    config = read_flags(MonitorConfig, program, given)
    assert config.data.root == settings["data"]["root"]
    flags = [f"--bundle={settings['bundle']}", f"--data.root={settings['data']['root']}"]
    flags += ["--data.dataset=table", f"--store.root={settings['store']['root']}"]
    flags += [f"--store.scratch={settings['store']['scratch']}"]
    done = subprocess.run(
        [sys.executable, PROJECT / program, *flags],
        env={**os.environ, **prefect_env, "PYTHONPATH": str(PROJECT)},
        check=True,
        text=True,
        capture_output=True,
    )
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines()[-3:])
    assert list(lines) == ["drift", "window", "page"]
