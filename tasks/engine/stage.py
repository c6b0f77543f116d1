"""What every stage shares: its place in the cache, its retries, its draft in the store."""

from __future__ import annotations

import errno
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import aiohttp
import botocore.exceptions  # type: ignore[import-untyped]
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.filesystems import WritableFileSystem
from prefect.results import ResultStore, get_result_store
from prefect.runtime import flow_run
from prefect.tasks import Task
from prefect.transactions import get_transaction
from prefect.utilities.callables import get_call_parameters

from cxrmodel.cluster.session import Workers, connected, divide
from cxrmodel.config import RuntimeConfig, Stage
from cxrmodel.progress import Progress, ReportProgress
from cxrmodel.storage.store import Artifact, Draft, Store
from cxrmodel.storage.work_folder import own_work_folder
from cxrmodel.threads import use_threads
from tasks.engine.cache import StagePolicy
from tasks.engine.progress import progress_reporter
from tasks.engine.provenance import provenance
from tasks.engine.records import Found, look_up

TRANSIENT = (OSError, aiohttp.ClientError, botocore.exceptions.HTTPClientError,
             botocore.exceptions.ConnectionError)  # fmt: skip
PERMANENT = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError,
             IsADirectoryError)  # fmt: skip
RETRY_DELAYS_S = (10, 20, 40)
KEEP_TIME_EVERY_S = 2.0

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger(__name__)


def is_transient(error: object) -> bool:
    """Say whether a failure is worth another attempt: input and output only, nothing permanent."""
    return (
        isinstance(error, TRANSIENT)
        and not isinstance(error, PERMANENT)
        and getattr(error, "errno", None) != errno.ENOSPC
    )


def has_failed_transiently(task: Task[..., Any], task_run: TaskRun, state: State) -> bool:
    """Say whether a task run is worth another attempt, as Prefect asks for it."""
    return is_transient(state.result(raise_on_failure=False))


RETRIES: dict[str, Any] = {
    "retries": len(RETRY_DELAYS_S),
    "retry_delay_seconds": list(RETRY_DELAYS_S),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": has_failed_transiently,
}
"""Options of a task that is tried again after a transient failure."""


class Planner(Protocol):
    """What is asked instead of Prefect where a run is only planned."""

    def visit(self, task: StageTask[..., Any], inputs: dict[str, Any]) -> Any:
        """Return what a stage would return, as far as that is known."""
        ...

    def stage_run(self, store: Store) -> AbstractContextManager[StageRun]:
        """Give a stage that runs to preview its result a place that leaves no trace."""
        ...


PLANNER: ContextVar[Planner | None] = ContextVar("planner", default=None)


class StageTask(Task[P, R]):
    """A task of the pipeline; where a run is only planned, a call asks the planner instead.

    Attributes:
        is_previewed: A plan computes the result, with which the stages after it can be planned.
    """

    is_previewed = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the stage, or return what it would return."""
        inputs = get_call_parameters(self.fn, args, kwargs)
        planner = PLANNER.get()
        if planner is not None:
            return planner.visit(self, inputs)
        if self.must_refresh(inputs):
            return self.with_options(refresh_cache=True)(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def key(self, inputs: dict[str, Any]) -> str:
        """Return the cache key of a call with these inputs."""
        return cast("StagePolicy", self.cache_policy).key(self.fn, inputs)

    def must_refresh(self, inputs: dict[str, Any]) -> bool:
        """Say whether the stage has to run although Prefect has a record of its result."""
        found = self._look_up(inputs)
        if found.problem:
            logger.warning("%s: runs again, for %s", self.name, found.problem)
            return True
        asked = self.name in (flow_run.parameters.get("refresh") or ())
        if found.artifact is not None and asked:
            logger.info("%s: refreshed as asked", self.name)
            return True
        return False

    def _look_up(self, inputs: dict[str, Any]) -> Found:
        """Look the result up; a store out of reach is asked again after the delays of a retry.

        Prefect would take an error here for a missing record.
        """
        for delay_s in (*RETRY_DELAYS_S, None):
            try:
                results = cast("ResultStore", get_result_store().update_for_task(self))
                records = cast("WritableFileSystem", results.result_storage)
                return look_up(records, inputs["store"], self.key(inputs))
            except TRANSIENT as error:
                if delay_s is None or not is_transient(error):
                    raise
                logger.warning("%s: %s; trying again in %d s", self.name, error, delay_s)
                time.sleep(delay_s)
        raise AssertionError("the last attempt returns or raises")


def stage(
    name: Stage, *, version: int = 1, is_previewed: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a cached, retried Prefect task of the pipeline.

    It has no tags: for each, Prefect asks its server for a concurrency slot, a second per run.

    Args:
        name: Of the stage.
        version: Raised by hand when something outside the code changes the meaning of a result.
        is_previewed: It makes tables of tables within seconds, so a dry run computes it too.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        task = StageTask(
            function,
            name=name,
            task_run_name=name,
            cache_policy=StagePolicy(stage=name, version=version),
            persist_result=True,
            result_serializer="json",
            **RETRIES,
        )
        task.is_previewed = is_previewed
        return task

    return decorate


class StageClock:
    """Time that a stage has taken, with that of attempts that were killed on this machine."""

    def __init__(self, work: Path) -> None:
        self._file, self._started = work / "elapsed_s", time.monotonic()
        self._earlier = float(self._file.read_text()) if self._file.exists() else 0.0
        self._kept_at = self._started

    def seconds(self) -> float:
        """Return the time so far, attempts before this one included."""
        return self._earlier + time.monotonic() - self._started

    def reporting(self, report: ReportProgress) -> ReportProgress:
        """Return a reporter that also notes the time, for an attempt after this one."""

        def note(progress: Progress) -> None:
            report(progress)
            if time.monotonic() - self._kept_at >= KEEP_TIME_EVERY_S:
                self._kept_at = time.monotonic()
                partial = self._file.with_suffix(".partial")
                partial.write_text(f"{self.seconds():.3f}")
                partial.replace(self._file)

        return note


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
    _clock: StageClock

    def commit(self, summary: dict[str, Any]) -> Artifact:
        """Publish the files and return their reference."""
        artifact = self._draft.commit(summary, self._provenance, self._clock.seconds())
        shutil.rmtree(self.work, ignore_errors=True)
        return artifact


@contextmanager
def stage_run(store: Store) -> Iterator[StageRun]:
    """Give the running stage its folders and its progress reporter.

    Raises:
        RuntimeError: This is not the run of a stage, or it has no cache key: Prefect goes on where
            it cannot compute one, and the result would be lost.
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
        raise RuntimeError("this stage has no cache key; the log above says why")
    name, key = context.task.name, transaction.key
    runtime = context.parameters.get("runtime")
    if runtime:
        use_threads(runtime.num_threads)
    made_by = provenance(context.task.fn, context.parameters)
    with (
        store.write(name, key.removeprefix(f"{name}-")) as draft,
        own_work_folder(store.scratch / "work", key) as work,
        progress_reporter(name) as report,
    ):
        clock = StageClock(work)
        yield StageRun(draft.directory, work, clock.reporting(report), draft, made_by, clock)


@contextmanager
def ray_workers(runtime: RuntimeConfig, device: str) -> Iterator[Workers | None]:
    """Join the Ray cluster of the settings for a while and divide it; give None without one.

    Args:
        runtime: The settings.
        device: Of the workers: `auto`, `cpu` or `cuda`.
    """
    if not runtime.ray_address:
        yield None
        return
    with connected(runtime.ray_address):
        yield divide(device, runtime.ray_workers)
