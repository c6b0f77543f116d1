"""Where Prefect keeps its cache records: beside the artifacts, so that both move together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
from fsspec.implementations.local import LocalFileSystem
from prefect.filesystems import RemoteFileSystem
from prefect.settings import (
    PREFECT_LOCAL_STORAGE_PATH,
    PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK,
    temporary_settings,
)

from cxrmodel.config import StoreConfig

FOLDER = "_results"


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
