"""Which records of the cache are used, without a server."""

import json
from pathlib import Path

import pytest
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer

from cxrmodel.storage.store import Artifact, Store
from tasks.engine.records import Found, block_name, has_record, look_up, open_records, records_url

KEY = f"split-{'0' * 64}"


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


@pytest.fixture
def records(store):
    return open_records(store.root)


@pytest.fixture
def recorded(store) -> Artifact:
    """An artifact in the store, and the record that Prefect writes of it."""
    with store.write("split", "0" * 64) as draft:
        (draft.directory / "split.parquet").write_bytes(b"rows")
        artifact = draft.commit({"num_train": 1}, {})
    place = LocalFileSystem(basepath=records_url(store.root))
    ResultStore(result_storage=place, serializer=JSONSerializer()).write(artifact, key=KEY)
    return artifact


def rewrite(store: Store, change) -> None:
    path = Path(records_url(store.root)) / KEY
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_a_record_of_ours_is_found_without_a_server(records, store, recorded):
    assert look_up(records, store, KEY) == Found(recorded)
    assert look_up(records, store, f"split-{'1' * 64}") == Found()
    assert has_record(records, "split")
    assert not has_record(records, "vae")


def test_nothing_is_found_in_a_store_that_is_not_there(records, store):
    assert look_up(records, store, KEY) == Found()
    assert not has_record(records, "split")


def test_a_lost_file_is_a_problem(records, store, recorded):
    path = store.directory(recorded) / "split.parquet"
    path.unlink()
    assert look_up(records, store, KEY).problem == f"{path} is missing"


def test_a_record_of_another_version_is_a_problem(records, store, recorded):
    def without_sizes(record):
        result = json.loads(record["result"])
        result["data"]["files"] = list(result["data"]["files"])
        record["result"] = json.dumps(result)

    rewrite(store, without_sizes)
    problem = f"its record {KEY} was written by another version"
    assert look_up(records, store, KEY) == Found(problem=problem)


def test_a_record_that_names_another_serializer_is_a_problem(records, store, recorded):
    rewrite(store, lambda record: record["metadata"]["serializer"].update(type="pickle"))
    assert look_up(records, store, KEY) == Found(problem=f"its record {KEY} is not one of ours")


def test_records_lie_beside_the_artifacts(tmp_path):
    assert records_url(str(tmp_path)) == f"{tmp_path}/_results"
    assert records_url(f"file://{tmp_path}/") == f"{tmp_path}/_results"
    assert records_url("s3://bucket/cxr/") == "s3://bucket/cxr/_results"
    assert block_name("s3://bucket/a/_results") != block_name("s3://bucket/b/_results")
