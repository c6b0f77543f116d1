"""Where Prefect keeps its cache records, beside the artifacts, and which of them may be used."""

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
from prefect.serializers import JSONSerializer
from prefect.settings import (
    PREFECT_LOCAL_STORAGE_PATH,
    PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK,
    temporary_settings,
)
from pydantic import ValidationError

from cxrmodel.config import RECORDS_FOLDER, StoreConfig
from cxrmodel.storage.store import Artifact, Store

BLOCK_TYPE = RemoteFileSystem.get_block_type_slug()
SERIALIZER = JSONSerializer().model_dump()
ARTIFACT = "cxrmodel.storage.store.Artifact"


def records_url(root: str) -> str:
    """Return the folder or URL of the records of a store."""
    file_system, path = fsspec.core.url_to_fs(root)
    place = path if isinstance(file_system, LocalFileSystem) else root
    return f"{place.rstrip('/')}/{RECORDS_FOLDER}"


def block_name(url: str) -> str:
    """Return the name of the saved block that points at records in a bucket."""
    return f"cxrmodel-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


def block_reference(url: str) -> str:
    """Return type and name of that block, as Prefect's settings refer to it."""
    return f"{BLOCK_TYPE}/{block_name(url)}"


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
    with temporary_settings(updates={PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK: block_reference(url)}):
        yield


def open_records(root: str) -> LocalRecords | RemoteFileSystem:
    """Return the records of a store for reading, without a Prefect server."""
    url = records_url(root)
    return RemoteFileSystem(basepath=url) if "://" in url else LocalRecords(basepath=url)


@dataclass(frozen=True)
class Found:
    """What the records hold for a key.

    Attributes:
        artifact: The result, where it can be used.
        problem: Why a record that is there must not be used, or empty.
    """

    artifact: Artifact | None = None
    problem: str = ""


def look_up(records: WritableFileSystem, store: Store, key: str) -> Found:
    """Find the usable result of a key: a record of ours, and all its files in the store.

    Nothing in a record that is not ours is loaded, and nothing is written.
    """
    content = _read(records, key)
    if content is None:
        return Found()
    if not _is_ours(content):
        return Found(problem=f"its record {key} is not one of ours")
    try:
        artifact = Artifact.model_validate(json.loads(json.loads(content)["result"])["data"])
    except ValidationError:
        return Found(problem=f"its record {key} was written by another version")
    problems = store.problems(artifact)
    return Found(problem="; ".join(problems)) if problems else Found(artifact)


def has_record(records: LocalRecords | RemoteFileSystem, stage: str) -> bool:
    """Say whether a stage has ever been recorded, whatever became of the record."""
    file_system, path = fsspec.core.url_to_fs(records.basepath)
    return bool(file_system.glob(f"{path}/{stage}-*"))


def _read(records: WritableFileSystem, key: str) -> bytes | None:
    """Return a record as it is stored, or None where there is none."""
    try:
        return cast("bytes", records.read_path(key))
    except (FileNotFoundError, ValueError):  # local storage raises ValueError for a missing file
        return None


def _is_ours(content: bytes) -> bool:
    """Say whether a record is one that this pipeline writes.

    Loading a record calls whatever it names: a serializer, a decoder, and each `__class__`.
    """
    try:
        record = json.loads(content)
        result = json.loads(record["result"])
        is_json = bool(record["metadata"]["serializer"] == SERIALIZER)
    except (ValueError, KeyError, TypeError):
        return False
    return (
        is_json
        and isinstance(result, dict)
        and result.keys() == {"__class__", "data"}
        and result["__class__"] == ARTIFACT
        and '"__class__"' not in json.dumps(result["data"])
    )
