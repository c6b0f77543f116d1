"""The server that a run brings along: past proxies, and from whatever scratch holds."""

import os
import sqlite3
from contextlib import closing

import pytest
from prefect import __version__
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.own_server import beside_proxies, own_server


@pytest.fixture(autouse=True)
def _no_server():
    with temporary_settings(updates={PREFECT_API_URL: ""}):
        yield


def answers() -> bool:
    with get_client(sync_client=True) as client:
        return client.api_healthcheck() is None


def tables(database) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def test_a_server_is_reached_past_proxies_and_replaces_a_damaged_database(tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.delenv("no_proxy", raising=False)
    kept = tmp_path / "prefect" / f"{__version__}.db"
    kept.parent.mkdir()
    kept.write_bytes(b"no database" * 1000)
    with own_server(tmp_path):
        assert answers()
    assert os.environ["NO_PROXY"] == "example.org"
    assert "no_proxy" not in os.environ
    assert "flow_run" in tables(kept)


def test_a_server_starts_where_its_empty_database_cannot_be_kept(tmp_path, caplog):
    scratch = tmp_path / "scratch"
    scratch.write_text("a file")
    with own_server(scratch):
        assert answers()
    assert f"{scratch}/prefect/{__version__}.db cannot be kept" in caplog.text


@pytest.mark.parametrize(
    "env, added",
    [
        ({}, "127.0.0.1"),
        ({"NO_PROXY": "a.org"}, "a.org,127.0.0.1"),
        ({"no_proxy": "", "NO_PROXY": "a.org"}, "a.org,127.0.0.1"),
        ({"no_proxy": "b.org", "NO_PROXY": "a.org"}, "b.org,127.0.0.1"),
    ],
)
def test_what_needs_no_proxy_stays_so(env, added):
    assert beside_proxies(env) == {"no_proxy": added, "NO_PROXY": added}
