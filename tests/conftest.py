"""Servers that many tests share; each test has its own bucket."""

import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings
from s3fs import S3FileSystem

from cxrmodel.training.devices import resolve_device
from tests.servers.ceph import REGION, Ceph, missing_programs
from tests.servers.fault_proxy import FaultProxy

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
settings.load_profile("unhurried")


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        default="cpu",
        help="where tests marked `gpu` train and encode: cpu, cuda, mps or auto",
    )


@pytest.fixture(scope="session")
def device(request) -> str:
    """Name the device of tests marked `gpu`; without the option it is the CPU."""
    return str(resolve_device(request.config.getoption("--device")))


@pytest.fixture(scope="session")
def near_the_cpu(device) -> dict[str, float]:
    """How near to a CPU's a result in float32 is: on a GPU, convolutions are in TF32."""
    return {"rtol": 1e-4, "atol": 1e-6} if device == "cpu" else {"rtol": 5e-3, "atol": 1e-4}


@pytest.fixture(scope="session")
def ceph() -> Iterator[Ceph]:
    """Return a real S3 server."""
    if missing := missing_programs():
        pytest.skip(f"Ceph is not installed: {', '.join(missing)} missing")
    server = Ceph()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(ceph, monkeypatch, tmp_path) -> Iterator[str]:
    """Return the name of an empty bucket on Ceph, with the environment set to reach it."""
    client, name = ceph.client(), f"films-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", ceph.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ceph.credentials.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ceph.credentials.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-such-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-such-credentials"))
    S3FileSystem.clear_instance_cache()
    yield name
    S3FileSystem.clear_instance_cache()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
        keys = [{"Key": found["Key"]} for found in page.get("Contents", [])]
        if keys:
            client.delete_objects(Bucket=name, Delete={"Objects": keys})
    client.delete_bucket(Bucket=name)


@pytest.fixture
def proxy(ceph, bucket, monkeypatch) -> Iterator[FaultProxy]:
    """Return a proxy before Ceph, with faults to set and requests counted; used by clients."""
    server = FaultProxy(ceph.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser():
    """Return a headless Chromium for `tests.servers.browser.visit`."""
    pytest.importorskip("playwright")
    from tests.servers.browser import chromium, find_chromium  # noqa: PLC0415

    if find_chromium() is None:
        pytest.skip("no Chromium is installed")
    with chromium() as found:
        yield found
