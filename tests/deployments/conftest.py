"""A guarded Prefect server and a copy of the project that its runs are made of."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from tests.deployments.site import Api
from tests.servers.prefect_server import AUTH, PrefectServer

PROJECT = Path(__file__).parents[2]
PACKAGES = ("cxrmodel", "tasks", "flows", "deployments")


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[PrefectServer]:
    """A server with its page, on SQLite."""
    server = PrefectServer(tmp_path_factory.mktemp("server"), page=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server):
    """Client of the server, also for code that makes its own."""
    updates = {PREFECT_API_URL: server.env["PREFECT_API_URL"], PREFECT_API_AUTH_STRING: AUTH}
    with temporary_settings(updates=updates), get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def api(client) -> Api:
    """What a user does and sees through the API of the server."""
    return Api(client)


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Path:
    """A copy of the project's code, which nobody edits while runs are under way."""
    folder = tmp_path_factory.mktemp("project")
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / package, folder / package, ignore=ignored)
    return folder
