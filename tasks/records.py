"""Where Prefect keeps its cache records: beside the artifacts, so that both move together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
from fsspec.implementations.local import LocalFileSystem
from prefect.filesystems import RemoteFileSystem
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer
from prefect.settings import (
    PREFECT_LOCAL_STORAGE_PATH,
    PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK,
    temporary_settings,
)

from cxrmodel.config import StoreConfig

FOLDER = "_results"
SERIALIZER = JSONSerializer().model_dump()
ARTIFACT = "cxrmodel.store.Artifact"


@contextmanager
def records_beside(store: StoreConfig) -> Iterator[None]:
    """Keep the records of the runs within this context in `<store.root>/_results`.

    A remote store needs a saved block; it holds the URL alone, credentials come from the cloud's
    own chain.
    """
    file_system, path = fsspec.core.url_to_fs(store.root)
    if isinstance(file_system, LocalFileSystem):
        with temporary_settings(updates={PREFECT_LOCAL_STORAGE_PATH: f"{path}/{FOLDER}"}):
            yield
        return
    url = f"{store.root.rstrip('/')}/{FOLDER}"
    name = f"cxrmodel-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    RemoteFileSystem(basepath=url).save(name, overwrite=True)
    block = f"{RemoteFileSystem.get_block_type_slug()}/{name}"
    with temporary_settings(updates={PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK: block}):
        yield


def raw_record(records: ResultStore, key: str) -> bytes | None:
    """Return a cache record as it is stored, or None where there is none."""
    try:
        return records.result_storage.read_path(key)
    except (FileNotFoundError, ValueError):  # local storage says a missing file by ValueError
        return None


def is_ours(content: bytes) -> bool:
    """Say whether a record is one that this pipeline writes, before anything in it is loaded.

    Loading a record calls whatever it names: a serializer, a decoder, and each `__class__`.
    """
    try:
        record = json.loads(content)
        result = json.loads(record["result"])
        trusted = record["metadata"]["serializer"] == SERIALIZER
    except (ValueError, KeyError, TypeError):
        return False
    if result is None:  # an expired record
        return trusted
    return (
        trusted
        and isinstance(result, dict)
        and result.keys() == {"__class__", "data"}
        and result["__class__"] == ARTIFACT
        and '"__class__"' not in json.dumps(result["data"])
    )
