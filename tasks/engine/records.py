"""Where Prefect keeps its cache records: beside the artifacts, so that both move together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import fsspec
from fsspec.implementations.local import LocalFileSystem
from prefect.filesystems import LocalFileSystem as LocalRecords
from prefect.filesystems import RemoteFileSystem, WritableFileSystem
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer
from prefect.settings import (
    PREFECT_LOCAL_STORAGE_PATH,
    PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK,
    temporary_settings,
)
from pydantic import ValidationError

from cxrmodel.config import StoreConfig
from cxrmodel.storage.store import Artifact, Store

FOLDER = "_results"
SERIALIZER = JSONSerializer().model_dump()
ARTIFACT = "cxrmodel.storage.store.Artifact"


def records_url(root: str) -> str:
    """Return the folder or URL of the records of a store."""
    file_system, path = fsspec.core.url_to_fs(root)
    place = path if isinstance(file_system, LocalFileSystem) else root
    return f"{place.rstrip('/')}/{FOLDER}"


def block_name(url: str) -> str:
    """Return the name of the saved block that points at records in a bucket."""
    return f"cxrmodel-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


@contextmanager
def records_beside(store: StoreConfig) -> Iterator[None]:
    """Keep the records of the runs within this context in `<store.root>/_results`.

    A remote store needs a saved block; it holds the URL alone, credentials come from the cloud's
    own chain.
    """
    url = records_url(store.root)
    if "://" not in url:
        with temporary_settings(updates={PREFECT_LOCAL_STORAGE_PATH: url}):
            yield
        return
    RemoteFileSystem(basepath=url).save(block_name(url), overwrite=True)
    block = f"{RemoteFileSystem.get_block_type_slug()}/{block_name(url)}"
    with temporary_settings(updates={PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK: block}):
        yield


def open_records(root: str) -> ResultStore:
    """Return the records of a store for reading, without a server of Prefect."""
    url = records_url(root)
    remote = "://" in url
    place = RemoteFileSystem(basepath=url) if remote else LocalRecords(basepath=url)
    return ResultStore(result_storage=place, serializer=JSONSerializer())


@dataclass(frozen=True)
class Found:
    """What the records hold for a key.

    Attributes:
        artifact: The result, where it can be used.
        problem: Why a record that is there must not be used, or empty.
    """

    artifact: Artifact | None = None
    problem: str = ""


def look_up(records: ResultStore, store: Store, key: str) -> Found:
    """Find the usable result of a key: a record of ours, and all its files in the store."""
    content = raw_record(records, key)
    if content is None:
        return Found()
    if not is_ours(content):
        return Found(problem=f"its record {key} is not one of ours")
    result = json.loads(json.loads(content)["result"])
    if result is None:
        return Found()  # expired
    try:
        artifact = Artifact.model_validate(result["data"])
    except ValidationError:
        return Found(problem=f"its record {key} was written by another version")
    if not records.exists(key):
        return Found()  # expired
    problems = store.problems(artifact)
    return Found(problem="; ".join(problems)) if problems else Found(artifact)


def has_record(records: ResultStore, stage: str) -> bool:
    """Say whether a stage has ever been recorded, whatever became of the record."""
    place = cast("LocalRecords | RemoteFileSystem", records.result_storage)
    file_system, path = fsspec.core.url_to_fs(place.basepath)
    return bool(file_system.glob(f"{path}/{stage}-*"))


def raw_record(records: ResultStore, key: str) -> bytes | None:
    """Return a cache record as it is stored, or None where there is none."""
    storage = cast("WritableFileSystem", records.result_storage)
    try:
        return cast("bytes", storage.read_path(key))
    except (FileNotFoundError, ValueError):  # local storage says a missing file by ValueError
        return None


def is_ours(content: bytes) -> bool:
    """Say whether a record is one that this pipeline writes, before anything in it is loaded.

    Loading a record calls whatever it names: a serializer, a decoder, and each `__class__`.
    """
    try:
        record = json.loads(content)
        result = json.loads(record["result"])
        trusted = bool(record["metadata"]["serializer"] == SERIALIZER)
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
