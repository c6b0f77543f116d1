"""Progress in the UI of Prefect: a server that is down must hold up nothing."""

import time
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import TaskRun
from prefect.context import TaskRunContext
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from cxrmodel.progress import Progress
from tasks.engine import progress
from tasks.vae import train_vae
from tests.servers.prefect_server import free_port

HANG_S = 20  # far beyond what any of these waits for, and below Prefect's own retries


@pytest.fixture
def within_task(monkeypatch):
    """Within a task run whose progress is told from its first moment."""
    monkeypatch.setattr(progress, "ARTIFACT_EVERY_S", 0.0)
    run = TaskRun.model_construct(id=uuid4(), flow_run_id=uuid4(), name="vae")
    with TaskRunContext.model_construct(task=train_vae, task_run=run):
        yield


@pytest.fixture
def no_server():
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        yield


def test_a_server_that_is_down_stops_neither_the_work_nor_its_end(within_task, no_server):
    start = time.monotonic()
    with progress.progress_reporter("vae") as report:
        for step in range(100):
            report(Progress("vae", step, 100))
        assert time.monotonic() - start < HANG_S / 4
    assert time.monotonic() - start < HANG_S


def test_a_server_that_is_down_is_named_once_in_the_log(within_task, no_server, caplog):
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        progress.progress_reporter("vae") as report,
    ):
        for step in range(3):
            report(Progress("vae", step, 100))
            time.sleep(0.2)
    warnings = [entry.message for entry in caplog.records if entry.name == "tasks.engine.progress"]
    assert len(warnings) == 1
    assert warnings[0].startswith("progress-vae: the server does not answer: ")


def test_an_interruption_is_not_held_up(within_task, no_server):
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), progress.progress_reporter("vae") as report:
        report(Progress("vae", 1, 100))
        raise KeyboardInterrupt
    assert time.monotonic() - start < HANG_S


def test_a_log_tells_each_kind_of_work_as_it_begins(caplog):
    caplog.set_level("INFO")
    with progress.progress_reporter("report") as report:
        for done, part in enumerate(["tables", "tables", "metrics"]):
            report(Progress("report", done, 3, "parts", doing=part))
    told = [entry.message for entry in caplog.records if entry.name == progress.__name__]
    assert told == ["report: 0 of 3 parts  tables", "report: 2 of 3 parts  metrics"]
