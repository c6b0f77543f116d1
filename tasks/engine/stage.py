"""What every stage shares: its cache policy, its retries, its draft in the store."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import aiohttp
import botocore.exceptions  # type: ignore[import-untyped]
from prefect.cache_policies import CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.tasks import Task, exponential_backoff
from prefect.transactions import get_transaction
from prefect.types._datetime import DateTime
from prefect.utilities.callables import get_call_parameters

from cxrmodel.code_digest import code_digest
from cxrmodel.config import Stage
from cxrmodel.progress import ReportProgress
from cxrmodel.storage.store import Artifact, Draft, Store
from cxrmodel.storage.work_folder import own_work_folder
from tasks.engine.progress import progress_reporter
from tasks.engine.provenance import identify, provenance
from tasks.engine.records import look_up

TRANSIENT = (OSError, aiohttp.ClientError, botocore.exceptions.HTTPClientError,
             botocore.exceptions.ConnectionError)  # fmt: skip
PERMANENT = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError,
             IsADirectoryError)  # fmt: skip

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger(__name__)


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
            key = self.key(task_ctx.task.fn, inputs)
            refresh = flow_parameters.get("refresh") or ()
            self._expire_unusable(task_ctx, inputs["store"], key, refresh)
        except Exception as error:
            self.error = error
            raise
        return key

    def key(self, function: Callable[..., Any], inputs: Mapping[str, Any]) -> str:
        """Return the key of a call, whether or not its result is there."""
        parts = {
            "stage": self.stage,
            "version": self.version,
            "code": code_digest(function.__module__),
            "inputs": identify(inputs),
        }
        text = json.dumps(parts, sort_keys=True)
        return f"{self.stage}-{hashlib.sha256(text.encode()).hexdigest()}"

    def _expire_unusable(
        self, task_ctx: TaskRunContext, store: Store, key: str, refresh: tuple[str, ...]
    ) -> None:
        records = task_ctx.result_store
        found = look_up(records, store, key)
        if found.problem:
            logger.warning("%s: runs again, for %s", self.stage, found.problem)
        elif found.artifact is not None and self.stage in refresh:
            logger.info("%s: refreshed as asked", self.stage)
        else:
            return
        past = cast("DateTime", datetime.now(UTC) - timedelta(days=1))
        records.write(key=key, obj=None, expiration=past)


def is_transient(task: Task[..., Any], task_run: TaskRun, state: State) -> bool:
    """Say whether a failure is worth another attempt: input and output only, nothing permanent."""
    error = state.result(raise_on_failure=False)
    return (
        isinstance(error, TRANSIENT)
        and not isinstance(error, PERMANENT)
        and getattr(error, "errno", None) != errno.ENOSPC
    )


class Planner(Protocol):
    """What is asked instead of Prefect where a run is only planned."""

    def visit(self, task: StageTask[..., Any], inputs: dict[str, Any]) -> Artifact:
        """Return what a stage would return, as far as that is known."""
        ...

    def stage_run(self, store: Store) -> AbstractContextManager[StageRun]:
        """Give a stage that runs to see its result a place that leaves no trace."""
        ...


PLANNER: ContextVar[Planner | None] = ContextVar("planner", default=None)


class StageTask(Task[P, R]):
    """A task of the pipeline; where a run is only planned, a call asks the planner instead."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the stage, or return what it would return."""
        planner = PLANNER.get()
        if planner is None:
            return super().__call__(*args, **kwargs)
        return planner.visit(self, get_call_parameters(self.fn, args, kwargs))


def stage(name: Stage, *, version: int = 1) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a cached, retried Prefect task of the pipeline.

    It has no tags: for each, Prefect asks its server for a concurrency slot, a second a run.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        return StageTask(
            function,
            name=name,
            task_run_name=name,
            cache_policy=StagePolicy(stage=name, version=version),
            persist_result=True,
            result_serializer="json",
            retries=3,
            retry_delay_seconds=exponential_backoff(10),
            retry_jitter_factor=0.5,
            retry_condition_fn=is_transient,
        )

    return decorate


@dataclass(frozen=True)
class StageRun:
    """A stage while it runs.

    Attributes:
        directory: Where to write its files.
        work: Node-local folder of this stage and key and of this process alone, for what a killed
            attempt leaves to the next; removed once the stage is published.
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
    planner = PLANNER.get()
    if planner is not None:
        with planner.stage_run(store) as run:
            yield run
        return
    context, transaction = TaskRunContext.get(), get_transaction()
    if context is None or transaction is None:
        raise RuntimeError("stage_run is only for the body of a task made by `stage`")
    if transaction.key is None:
        policy = cast("StagePolicy", context.task.cache_policy)
        raise policy.error or RuntimeError("this stage has no cache key")
    name, key = context.task.name, transaction.key
    made_by, started = provenance(context.task.fn, context.parameters), time.monotonic()
    with (
        store.write(name, key.removeprefix(f"{name}-")) as draft,
        own_work_folder(store.scratch / "work", key) as work,
        progress_reporter(name) as report,
    ):
        yield StageRun(draft.directory, work, report, draft, made_by, started)
