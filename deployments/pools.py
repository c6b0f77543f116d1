"""What runs share on the server: their work pool, and the block that names their records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import BlockDocument
from prefect.filesystems import RemoteFileSystem

from cxrmodel.config import RECORDS_FOLDER
from cxrmodel.places import is_folder
from deployments.reconcile import found
from deployments.target import Target
from tasks.engine.records import BLOCK_TYPE, block_name, block_reference, records_url

TEMPLATES = Path(__file__).parent / "templates"
ONE_GPU = 1


def job_template(target: Target) -> dict[str, Any]:
    """Return the pool's base job template, which refuses job variables it does not name."""
    template: dict[str, Any] = yaml.safe_load(
        (TEMPLATES / f"{target.pool_type}.yaml").read_text(encoding="utf-8")
    )
    variables = template["variables"]["properties"]
    if target.volumes:
        variables["volumes"]["default"] += target.volumes
    if target.outputs_claim:
        claim = {"claimName": target.outputs_claim}
        variables["outputs_volume"]["default"] = {"name": "outputs", "persistentVolumeClaim": claim}
    return template


class WorkPool:
    """The pool that every run waits in."""

    def __init__(self, target: Target) -> None:
        self.label = f"work pool {target.pool}"
        self._name, self._type = target.pool, target.pool_type
        self._template = job_template(target)

    def wanted(self) -> dict[str, Any]:
        """Return the fields as they should be."""
        return {
            "type": self._type,
            "description": "Trains on chest X-rays, one run at a time.",
            "concurrency_limit": ONE_GPU,
            "base_job_template": self._template,
        }

    def current(self, client: SyncPrefectClient) -> dict[str, Any] | None:
        """Return the same fields as the server has them, or None."""
        pool = found(lambda: client.read_work_pool(self._name))
        return {name: getattr(pool, name) for name in self.wanted()} if pool else None

    def write(self, client: SyncPrefectClient) -> None:
        """Create or update the pool; a pause set by hand stays.

        Raises:
            ValueError: The pool exists with another type, which a server cannot change.
        """
        current, wanted = self.current(client), self.wanted()
        if current is None:
            client.create_work_pool(WorkPoolCreate(name=self._name, **wanted))
        elif current["type"] != self._type:
            raise ValueError(
                f"{self.label} is of type {current['type']}, which cannot become {self._type}. "
                "Remove it with --delete, or name another with --pool"
            )
        else:
            del wanted["type"]
            client.update_work_pool(self._name, WorkPoolUpdate(**wanted))

    def delete(self, client: SyncPrefectClient) -> None:
        """Remove the pool."""
        client.delete_work_pool(self._name)


def records_environment(root: str) -> dict[str, str]:
    """Return the environment that points a job's records at its store."""
    if is_folder(root):
        return {"PREFECT_LOCAL_STORAGE_PATH": f"{root}/{RECORDS_FOLDER}"}
    return {"PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK": block_reference(records_url(root))}


class RecordsBlock:
    """The saved block that names the records' place in a bucket; it holds no credentials."""

    def __init__(self, root: str) -> None:
        self._url = records_url(root)
        self._name = block_name(self._url)
        self.label = f"block {self._name}"

    def wanted(self) -> dict[str, Any]:
        """Return the fields as they should be."""
        return {"basepath": self._url}

    def current(self, client: SyncPrefectClient) -> dict[str, Any] | None:
        """Return the same fields as the server has them, or None."""
        document = self._read(client)
        return {"basepath": document.data["basepath"]} if document else None

    def write(self, client: SyncPrefectClient) -> None:
        """Save the block."""
        RemoteFileSystem(basepath=self._url).save(self._name, overwrite=True)

    def delete(self, client: SyncPrefectClient) -> None:
        """Remove the block; the records stay."""
        document = self._read(client)
        if document is not None:
            client.delete_block_document(document.id)

    def _read(self, client: SyncPrefectClient) -> BlockDocument | None:
        return found(lambda: client.read_block_document_by_name(self._name, BLOCK_TYPE))
