"""Publishing to and fetching from a real S3 server when the network or the server misbehaves."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from s3fs import S3FileSystem

from cxrmodel.errors import DamagedArtifactError
from cxrmodel.storage import retry
from cxrmodel.storage.retry import NUM_READS
from cxrmodel.storage.store import Store

pytestmark = pytest.mark.integration

WEIGHTS = bytes(range(256)) * 400


@pytest.fixture
def store(bucket, proxy, tmp_path, monkeypatch):
    """Return a store behind the proxy, whose client waits for 1 s at most."""
    monkeypatch.setattr(S3FileSystem, "read_timeout", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # leave all repeating to us
    return Store(f"s3://{bucket}/store", tmp_path / "scratch")


def publish(store):
    with store.write("vae", "k" * 64) as draft:
        (draft.directory / "vae.safetensors").write_bytes(WEIGHTS)
        (draft.directory / "config.json").write_text("{}")
        return draft.commit({}, {})


def fetch(store, tmp_path):
    """Return the content of the artifact's file, fetched to a new scratch folder."""
    elsewhere = Store(store.root, tmp_path / "elsewhere")
    return (elsewhere.directory(publish(store)) / "vae.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("reply", {"share": 0.4}),
        ("reply", {"share": 0.4, "status": 500, "code": "InternalError"}),
        ("latency", {"seconds": 0.2}),
        ("hang", {"match": "PUT", "times": 1}),
        ("hang", {"match": "GET|LIST", "times": 1}),
        ("reset", {"match": "PUT", "times": 3}),
        ("reset", {"match": "GET|LIST", "times": 3}),
        ("truncate", {"match": "GET|LIST", "times": 3}),
        ("stall", {"match": "GET", "times": 1}),
        ("corrupt", {"match": r"GET .*\.safetensors", "times": 2}),
    ],
)
def test_what_was_published_comes_back(kind, settings, store, proxy, tmp_path):
    fault = proxy.add(kind, **settings)
    assert fetch(store, tmp_path) == WEIGHTS
    assert fault.injected >= 1
    assert store.problems(publish(store)) == []


@pytest.mark.parametrize("kind", ["corrupt", "truncate"])
def test_a_download_that_is_always_damaged_is_refused_by_name(
    kind, store, proxy, tmp_path, monkeypatch
):
    monkeypatch.setattr(retry, "PATIENCE_S", 0.2)
    monkeypatch.setattr(S3FileSystem, "retries", 2)
    proxy.add(kind, r"GET .*\.safetensors")
    expected = {
        "corrupt": (DamagedArtifactError, r"s3://.*vae\.safetensors does not have the checksum"),
        "truncate": (ConnectionError, r"Reading s3://.*vae\.safetensors failed"),
    }
    error, message = expected[kind]
    with pytest.raises(error, match=message):
        fetch(store, tmp_path)
    assert proxy.counts["GET"] >= min(NUM_READS, 2)
    assert not any(path.is_file() for path in (tmp_path / "elsewhere").rglob("vae*"))


def test_a_publication_that_breaks_off_does_not_exist(store, proxy, monkeypatch):
    monkeypatch.setattr(retry, "PATIENCE_S", 0.2)
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    fault = proxy.add("reply", r"PUT .*vae\.safetensors")
    with pytest.raises(ConnectionError, match=r"Writing s3://.*vae\.safetensors failed"):
        publish(store)
    assert not any("manifest" in request for request in proxy.requests)
    fault.times = 0
    assert store.problems(publish(store)) == []


def test_a_refused_publication_says_what_and_where(bucket, store, proxy):
    proxy.add("reply", "PUT", status=403, code="AccessDenied")
    with pytest.raises(PermissionError, match=rf"Writing s3://{bucket}/store/vae/.* was refused"):
        publish(store)
    assert proxy.counts["PUT"] == 1


def test_the_server_goes_away_and_comes_back(ceph, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", ceph.endpoint)
    S3FileSystem.clear_instance_cache()
    store = Store(f"s3://{bucket}/store", tmp_path / "scratch")
    ceph.stop_gateway()
    with ThreadPoolExecutor(1) as pool:
        published = pool.submit(publish, store)
        time.sleep(1)
        was_done = published.done()
        ceph.start_gateway()
        artifact = published.result()
    assert not was_done
    assert store.problems(artifact) == []
