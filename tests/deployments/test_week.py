"""A team's week: new images, scores, drift, another site, a retraining, a promotion, a way back."""

from collections.abc import Iterator

import pytest
from s3fs import S3FileSystem

from tests.deployments.hospital import Hospital
from tests.deployments.site import Site, api_of
from tests.deployments.week import (
    BUCKET,
    STEPS,
    Week,
    everything_is_deployed_and_nothing_runs_by_itself,
)
from tests.servers.prefect_server import PrefectServer
from tests.servers.s3 import client_of, s3_server

pytestmark = pytest.mark.integration


@pytest.fixture
def cloud(monkeypatch) -> Iterator[dict[str, str]]:
    """Environment of a client of an S3 server with one empty bucket, which this process has too."""
    with s3_server() as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        S3FileSystem.clear_instance_cache()
        client_of(env).create_bucket(Bucket=BUCKET)
        yield env
        S3FileSystem.clear_instance_cache()


@pytest.fixture
def server(tmp_path) -> Iterator[PrefectServer]:
    """A server that has no deployments yet."""
    home = tmp_path / "server"
    home.mkdir()
    server = PrefectServer(home)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def week(server, cloud, project, tmp_path) -> Iterator[Week]:
    """Monday morning: a server, the hospitals, an empty store."""
    env = {**server.env, **cloud, "PYTHONPATH": str(project), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    site = Site(tmp_path, env, "test-week")
    client = client_of(env)
    home, elsewhere = (Hospital(client, BUCKET, name) for name in ("images", "site"))
    with api_of(server) as api:
        yield Week(project, site, api, home, elsewhere)


def test_a_week_in_the_life_of_a_team(week):
    everything_is_deployed_and_nothing_runs_by_itself(week)
    with week.site.worker():
        for step in STEPS:
            step(week)
