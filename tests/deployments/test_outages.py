"""One run through a night of outages: Prefect's server, its database, and the object store."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from tests.deployments.site import SMALL, STAGES, Api, Site, descendants
from tests.servers.ceph import Ceph
from tests.servers.postgres import Postgres, find_programs
from tests.servers.prefect_server import AUTH, PrefectServer, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("ceph")]
# Longer than the client of Prefect goes on trying (5 retries, 2 + 4 + 8 + 16 + 32 s at most half
# of that with jitter) and than a heartbeat's and a progress artifact's interval.
SERVER_OUTAGE_S = 60
STORE_OUTAGE_S = 30
EPOCHS = 300  # at full speed half a minute; the outages find it slowed, so that they find it at all


@pytest.fixture
def server(tmp_path) -> Iterator[PrefectServer]:
    """A server on PostgreSQL."""
    if find_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    home = tmp_path / "server"
    home.mkdir()
    database = Postgres()
    database.start()
    server = PrefectServer(home, database.url)
    server.database = database
    server.start()
    yield server
    server.stop()
    database.stop()


@pytest.fixture
def api(server) -> Iterator[Api]:
    updates = {PREFECT_API_URL: server.env["PREFECT_API_URL"], PREFECT_API_AUTH_STRING: AUTH}
    with temporary_settings(updates=updates), get_client(sync_client=True) as client:
        yield Api(client)


@contextmanager
def slowed(pids: list[int], share: float = 0.1) -> Iterator[None]:
    """Let processes run for a share of the time alone, as on a far slower machine."""
    over = Event()

    def alternate() -> None:
        while not over.wait(share):
            send(pids, signal.SIGSTOP)
            over.wait(1 - share)
            send(pids, signal.SIGCONT)

    thread = Thread(target=alternate)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        send(pids, signal.SIGCONT)


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def test_a_run_outlives_its_server_the_database_and_the_object_store(
    server: PrefectServer, api: Api, ceph: Ceph, bucket, project, tmp_path
):
    site = Site(tmp_path, server.env | {"PYTHONPATH": str(project)}, "test-outages")
    site.deploy(project, *SMALL, store=f"s3://{bucket}/store")
    with site.worker() as worker:
        run = api.trigger("train", vae__epochs=EPOCHS, vae__checkpoint_every_s=1)
        wait_until(site.step, "a checkpoint is written")
        flow = descendants(worker.pid)
        with slowed(flow):
            lose_server(server, site)
            lose_database(server, api, run)
        lose_store(ceph, api, run)
        assert api.finish(run) == "Completed", api.log(run)
        assert api.stages(run) == dict.fromkeys(STAGES, "Completed")
        assert descendants(worker.pid) == []


def lose_server(server: PrefectServer, site: Site) -> None:
    """Stop the server; training must go on to the end of the outage, not just to its start."""
    server.stop()
    stopped = time.monotonic()
    while time.monotonic() - stopped < SERVER_OUTAGE_S:
        time.sleep(1)
        print(round(time.monotonic() - stopped), site.step())
    server.start()


def lose_database(server, api: Api, run: UUID) -> None:
    server.database.restart()
    wait_until(lambda: api.state(run) == "Running", "the server has its database again")


def lose_store(ceph: Ceph, api: Api, run: UUID) -> None:
    """Stop the store until a stage has needed it."""
    ceph.stop_gateway()
    stopped = time.monotonic()
    try:
        wait_until(lambda: api.stages(run).get("vae") == "AwaitingRetry", "a stage is retried")
        print("awaiting retry after", time.monotonic() - stopped)
        time.sleep(max(0, STORE_OUTAGE_S - (time.monotonic() - stopped)))
    finally:
        ceph.start_gateway()
