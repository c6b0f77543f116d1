"""A guarded Prefect server, a process worker, a bucket, and the deployments of a copied project."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

PROJECT = Path(__file__).parents[2]
AUTH = "admin:correct-horse"
PACKAGES = ("cxrmodel", "tasks", "flows", "deployments")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.2)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


@contextmanager
def running(command: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """A background process, ended on leaving."""
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, env={**os.environ, **env}, cwd=log.parent, stdout=stream, stderr=stream
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def until():
    """Wait for a condition, named for the message where it does not come."""
    return wait_until


@pytest.fixture(scope="session")
def background():
    """Run a command in the background."""
    return running


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[dict[str, str]]:
    """Environment of a client of a server with password and CSRF protection, as in compose.yaml."""
    home, port = tmp_path_factory.mktemp("server"), free_port()
    env = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_API_AUTH_STRING": AUTH,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    guard = {
        "PREFECT_SERVER_API_AUTH_STRING": AUTH,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with running(command, {**env, **guard}, home / "server.log"):
        wait_until(lambda: answers(f"{env['PREFECT_API_URL']}/health"), "the server answers")
        yield env


@pytest.fixture
def client(server):
    """Client of the server, also for code that makes its own."""
    updates = {PREFECT_API_URL: server["PREFECT_API_URL"], PREFECT_API_AUTH_STRING: AUTH}
    with temporary_settings(updates=updates), get_client(sync_client=True) as client:
        yield client


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Path:
    """A copy of the project's code, which nobody edits while runs are under way."""
    folder = tmp_path_factory.mktemp("project")
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / package, folder / package, ignore=ignored)
    return folder
