"""Old runs leave the server's database; what they made stays in the store."""

import sqlite3
from contextlib import closing
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed

from tests.servers.prefect_server import PrefectServer, wait_until

pytestmark = pytest.mark.integration


@flow
def nothing() -> None:
    """Do nothing."""


def ended(server: PrefectServer, client: SyncPrefectClient, hours_ago: int) -> UUID:
    """Return a run that ended some time ago; only the database can tell the server so."""
    run = client.create_flow_run(nothing).id
    client.set_flow_run_state(run, Completed(), force=True)
    with closing(sqlite3.connect(server.home / "prefect.db", timeout=30)) as database, database:
        changed = database.execute(
            "UPDATE flow_run SET end_time = datetime(end_time, ?) WHERE id = ?",
            (f"-{hours_ago} hours", str(run)),
        )
        assert changed.rowcount == 1
    return run


def exists(client: SyncPrefectClient, run: UUID) -> bool:
    try:
        client.read_flow_run(run)
    except ObjectNotFound:
        return False
    return True


def test_runs_beyond_the_retention_period_are_removed_and_no_others(server, client):
    old, young = (ended(server, client, hours) for hours in (3, 1))  # the limit is 2
    wait_until(lambda: not exists(client, old), "the old run is removed")
    assert exists(client, young)
