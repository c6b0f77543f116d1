"""What every stage shares: its cache policy, its retries, its draft in the store."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import logging
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import botocore.exceptions
from prefect import task
from prefect.cache_policies import CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.tasks import Task, exponential_backoff
from prefect.transactions import get_transaction

from cxrmodel.config import Section, Stage
from cxrmodel.data.source import Source
from cxrmodel.progress import ReportProgress
from cxrmodel.store import Artifact, Draft, Store
from tasks.closure import code_digest
from tasks.pixels import PixelSource
from tasks.records import is_ours, raw_record
from tasks.reporting import progress_reporter

PACKAGES = ("cxrmodel", "numpy", "pandas", "pillow", "prefect", "pyarrow", "safetensors",
            "scikit-learn", "torch")  # fmt: skip
PLACES = frozenset(
    {"root", "runtime", "store"}
)  # where and on what a stage runs, not what it makes
TRANSIENT = (OSError, aiohttp.ClientError, botocore.exceptions.HTTPClientError)
PERMANENT = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError,
             IsADirectoryError)  # fmt: skip

logger = logging.getLogger(__name__)


def identify(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a stage's inputs determines its result, as JSON values.

    Raises:
        TypeError: An input is of a type that this function does not know.
    """
    return {
        name: _identity(name, value) for name, value in sorted(inputs.items()) if name not in PLACES
    }


def _identity(name: str, value: Any) -> Any:
    if isinstance(value, Section):
        return value.key_fields()
    if isinstance(value, Artifact | Source | PixelSource):
        return value.fingerprint
    if isinstance(value, dict):
        return identify(value)
    raise TypeError(
        f"{name} is a {type(value).__name__}, which has no place in a cache key: pass a config "
        "section, an Artifact, a Source, a PixelSource, or a dictionary of them"
    )


@dataclass
class StagePolicy(CachePolicy):
    """Caches a stage by its version, its code, its inputs' content and its own settings.

    Attributes:
        stage: Name of the stage.
        version: Raised by hand when something outside the code changes the meaning of a result.
    """

    stage: str = ""
    version: int = 1
    error: Exception | None = field(default=None, compare=False)

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **_: Any,
    ) -> str:
        """Return the key, after expiring a record that must not be used.

        Prefect goes on without a key where this raises; the error is kept for `stage_run`.
        """
        self.error = None
        try:
            key = self._key(task_ctx, inputs)
            refresh = flow_parameters.get("refresh") or ()
            self._expire_unusable(task_ctx, inputs["store"], key, refresh)
        except Exception as error:
            self.error = error
            raise
        return key

    def _key(self, task_ctx: TaskRunContext, inputs: dict[str, Any]) -> str:
        parts = {
            "stage": self.stage,
            "version": self.version,
            "code": code_digest(task_ctx.task.fn.__module__),
            "inputs": identify(inputs),
        }
        text = json.dumps(parts, sort_keys=True)
        return f"{self.stage}-{hashlib.sha256(text.encode()).hexdigest()}"

    def _expire_unusable(
        self, task_ctx: TaskRunContext, store: Store, key: str, refresh: tuple[str, ...]
    ) -> None:
        records = task_ctx.result_store
        content = raw_record(records, key)
        if content is None:
            return
        if not is_ours(content):
            logger.warning("%s: runs again, for its record %s is not one of ours", self.stage, key)
        elif not records.exists(key):
            return
        elif self.stage in refresh:
            logger.info("%s: refreshed as asked", self.stage)
        else:
            problems = store.problems(records.read(key).result)
            if not problems:
                return
            logger.warning("%s: runs again, for %s", self.stage, "; ".join(problems))
        past = datetime.now(UTC) - timedelta(days=1)
        records.write(key=key, obj=None, expiration=past)


def is_transient(task: Task[..., Any], task_run: TaskRun, state: State) -> bool:
    """Say whether a failure is worth another attempt: input and output only, nothing permanent."""
    error = state.result(raise_on_failure=False)
    return (
        isinstance(error, TRANSIENT)
        and not isinstance(error, PERMANENT)
        and getattr(error, "errno", None) != errno.ENOSPC
    )


def stage(name: Stage, *, version: int = 1, tags: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Make a function a cached, retried Prefect task of the pipeline."""
    return task(
        name=name,
        task_run_name=name,
        tags=list(tags),
        cache_policy=StagePolicy(stage=name, version=version),
        persist_result=True,
        result_serializer="json",
        retries=3,
        retry_delay_seconds=exponential_backoff(10),
        retry_jitter_factor=0.5,
        retry_condition_fn=is_transient,
    )


@dataclass(frozen=True)
class StageRun:
    """A stage while it runs.

    Attributes:
        directory: Where to write its files.
        work: Node-local folder of this stage and key, for what a killed attempt leaves to the
            next; removed once the stage is published.
        report: Where to report progress.
    """

    directory: Path
    work: Path
    report: ReportProgress
    _draft: Draft
    _provenance: dict[str, Any]
    _started: float

    def commit(self, summary: dict[str, Any]) -> Artifact:
        """Publish the files and return their reference."""
        seconds = time.monotonic() - self._started
        artifact = self._draft.commit(summary, self._provenance, seconds)
        shutil.rmtree(self.work, ignore_errors=True)
        return artifact


@contextmanager
def stage_run(store: Store) -> Iterator[StageRun]:
    """Give the running stage its folders and its progress reporter.

    Raises:
        RuntimeError: This is not the run of a stage.
        Exception: What went wrong in computing the cache key, without which the result would be
            silently lost; a store out of reach is then retried like any other.
    """
    context, transaction = TaskRunContext.get(), get_transaction()
    if context is None or transaction is None:
        raise RuntimeError("stage_run is only for the body of a task made by `stage`")
    if transaction.key is None:
        raise context.task.cache_policy.error or RuntimeError("this stage has no cache key")
    name, key = context.task.name, transaction.key
    started = time.monotonic()
    with (
        store.write(name, key.removeprefix(f"{name}-")) as draft,
        progress_reporter(name) as report,
    ):
        work = store.scratch / "work" / key
        yield StageRun(draft.directory, work, report, draft, provenance(context), started)


def provenance(context: TaskRunContext) -> dict[str, Any]:
    """Return what made a result: code, inputs with their settings and seeds, packages."""
    return {
        "code": code_digest(context.task.fn.__module__),
        "inputs": identify(context.parameters),
        "packages": package_versions(),
    }


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **versions}
