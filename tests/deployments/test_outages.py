"""One run through a night of outages: Prefect's server, its database, and the object store."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from uuid import UUID

import pytest

from tests.deployments.site import SMALL, STAGES, Api, Site, api_of, descendants
from tests.servers.ceph import Ceph
from tests.servers.postgres import Postgres, find_programs
from tests.servers.prefect_server import PrefectServer, wait_until

pytestmark = pytest.mark.integration
SERVER_OUTAGE_S = 30
STORE_OUTAGE_S = 20
# Some seconds of training at full speed. During the outages it rests after each step that is seen,
# so that they find it in the middle on any machine; then it is let run, and is soon at its end.
EPOCHS = 30
STEPS = EPOCHS * 6  # of 42 train images in batches of 8
REST_S = 3


@pytest.fixture
def database() -> Iterator[Postgres]:
    """PostgreSQL, for the server's state."""
    if find_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    database = Postgres()
    database.start()
    yield database
    database.stop()


@pytest.fixture
def server(database, tmp_path) -> Iterator[PrefectServer]:
    """A server that keeps its state in PostgreSQL."""
    home = tmp_path / "server"
    home.mkdir()
    server = PrefectServer(home, database.url)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def site(server, bucket, project, films, tmp_path) -> Site:
    """The deployments on a store in the bucket."""
    env = {**server.env, "PYTHONPATH": str(project), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    site = Site(tmp_path, env, "test-outages")
    site.deploy(project, *SMALL, f"--data.root={films}", store=f"s3://{bucket}/store")
    return site


def test_a_run_outlives_the_server_its_database_and_the_object_store(server, database, ceph, site):
    with api_of(server) as api, site.worker() as worker:
        run = api.trigger("train", vae__epochs=EPOCHS, vae__checkpoint_every_s=1)
        wait_until(site.step, "a checkpoint is written")
        with slowed(site, descendants(worker.pid)):
            lose_server(server, site)
            database.restart()
            wait_until(lambda: answers_for(api, run), "the server has its database again")
            ceph.stop_gateway()
        lose_store(ceph, site)
        assert api.finish(run) == "Completed", api.log(run)
        assert api.stages(run) == dict.fromkeys(STAGES, "Completed")
        assert {"headline", "ledger", "per-class"} <= api.artifacts(run).keys()
        again = api.trigger("train", vae__epochs=EPOCHS, vae__checkpoint_every_s=1)
        assert api.finish(again) == "Completed", api.log(again)
        assert api.stages(again) == dict.fromkeys(
            STAGES, "Cached"
        )  # every record and file is there


@contextmanager
def slowed(site: Site, pids: list[int]) -> Iterator[None]:
    """Let a run rest after each step, as on a far slower machine."""
    over = Event()

    def alternate() -> None:
        while not over.is_set():
            reached = site.step()
            while site.step() == reached and not over.wait(0.05):
                pass
            send(pids, signal.SIGSTOP)
            over.wait(REST_S)
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


def lose_server(server: PrefectServer, site: Site) -> None:
    """Stop the server; training must go on to the end of the outage, not just to its start."""
    server.stop()
    before = site.step()
    time.sleep(SERVER_OUTAGE_S / 2)
    halfway = site.step()
    time.sleep(SERVER_OUTAGE_S / 2)
    assert before < halfway < site.step() < STEPS
    server.start()


def answers_for(api: Api, run: UUID) -> bool:
    return api.state(run) == "Running"


def lose_store(ceph: Ceph, site: Site) -> None:
    """Keep the store away, for as long as was said and until the end of training has missed it."""
    stopped, told = time.monotonic(), len(site.log.read_text())
    try:
        wait_until(lambda: "trying again" in site.log.read_text()[told:], "a request is repeated")
        time.sleep(max(0, STORE_OUTAGE_S - (time.monotonic() - stopped)))
    finally:
        ceph.start_gateway()
