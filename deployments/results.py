"""Where deployed runs keep Prefect's cache records: beside the artifacts of their store."""

from __future__ import annotations

from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.filesystems import RemoteFileSystem

from cxrmodel.places import is_folder
from tasks.engine.records import FOLDER, block_name, records_url


def environment(root: str) -> dict[str, str]:
    """Return the environment that points a job's records at its store."""
    if is_folder(root):
        return {"PREFECT_LOCAL_STORAGE_PATH": f"{root}/{FOLDER}"}
    slug = RemoteFileSystem.get_block_type_slug()
    return {"PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK": f"{slug}/{RecordsBlock(root).name}"}


class RecordsBlock:
    """The saved block that names the records' place in a bucket; it holds no credentials."""

    def __init__(self, root: str) -> None:
        self._url = records_url(root)
        self.name = block_name(self._url)
        self.label = f"block {self.name}"

    def wanted(self) -> dict[str, Any]:
        """Return the fields as they should be."""
        return {"basepath": self._url}

    def current(self, client: SyncPrefectClient) -> dict[str, Any] | None:
        """Return the same fields as the server has them, or None."""
        slug = RemoteFileSystem.get_block_type_slug()
        try:
            document = client.read_block_document_by_name(self.name, slug)
        except ObjectNotFound:
            return None
        return {"basepath": document.data["basepath"]}

    def write(self, client: SyncPrefectClient) -> None:
        """Save the block."""
        RemoteFileSystem(basepath=self._url).save(self.name, overwrite=True)

    def delete(self, client: SyncPrefectClient) -> None:
        """Remove the block; the records stay."""
        slug = RemoteFileSystem.get_block_type_slug()
        client.delete_block_document(client.read_block_document_by_name(self.name, slug).id)
