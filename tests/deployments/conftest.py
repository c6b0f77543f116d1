"""A guarded Prefect server and a copy of the project that its runs are made of."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxrmodel.phantom import write_phantoms
from tests.deployments.site import Api, api_of
from tests.servers.prefect_server import PrefectServer

PROJECT = Path(__file__).parents[2]
PACKAGES = ("cxrmodel", "tasks", "flows", "deployments")
VACUUM = {  # as in compose.yaml, but for the times
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS": "10",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "7200",
}


@pytest.fixture(scope="package")
def server(tmp_path_factory) -> Iterator[PrefectServer]:
    """A server with its page, on SQLite."""
    server = PrefectServer(tmp_path_factory.mktemp("server"), settings=VACUUM, page=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def api(server) -> Iterator[Api]:
    """What a user does and sees through the API of the server."""
    with api_of(server) as api:
        yield api


@pytest.fixture
def client(api):
    """Client of the server, also for code that makes its own."""
    return api.client


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Path:
    """A copy of the project's code, which nobody edits while runs are under way."""
    folder = tmp_path_factory.mktemp("project")
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / package, folder / package, ignore=ignored)
    return folder


@pytest.fixture(scope="session")
def films(tmp_path_factory) -> Path:
    """Sixty small synthetic films in NIH's layout, drawn faster than the pipeline's own."""
    root = tmp_path_factory.mktemp("films")
    write_phantoms(root, 60, size_px=64)
    return root
