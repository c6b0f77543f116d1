"""Progress and results of the library, shown in the terminal and in Prefect."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.handlers import APILogHandler
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)

from cxrmodel.progress import Progress, ReportProgress

LOGGED_PACKAGES = ("cxrmodel", "tasks")
ARTIFACT_EVERY_S = 5.0
LOG_EVERY_S = 10.0

logger = logging.getLogger(__name__)


def show_library_logs() -> None:
    """Send what the library logs within a run to Prefect too, from INFO upwards."""
    for package in LOGGED_PACKAGES:
        library = logging.getLogger(package)
        library.setLevel(logging.INFO)
        if not any(isinstance(handler, APILogHandler) for handler in library.handlers):
            handler = APILogHandler()
            handler.addFilter(_is_within_run)  # threads of the library are not
            library.addHandler(handler)


def _is_within_run(_: logging.LogRecord) -> bool:
    return (FlowRunContext.get() or TaskRunContext.get()) is not None


@contextmanager
def progress_reporter(stage: str) -> Iterator[ReportProgress]:
    """Give a callable that shows progress as a bar or log lines, and as a Prefect artifact."""
    artifact = _ProgressArtifact(stage)
    terminal = _TerminalBar() if sys.stderr.isatty() else _LogLines()

    def report(progress: Progress) -> None:
        terminal.show(progress)
        artifact.show(progress)

    try:
        yield report
    finally:
        terminal.close()


def _metrics(progress: Progress) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in progress.metrics.items())


class _TerminalBar:
    """One bar that takes the colour of the terminal and leaves no trace."""

    def __init__(self) -> None:
        self._bar = Bar(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}  {task.fields[metrics]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._lines: dict[str, TaskID] = {}
        self._bar.start()

    def show(self, progress: Progress) -> None:
        if progress.stage not in self._lines:
            self._lines[progress.stage] = self._bar.add_task(
                progress.stage, total=progress.total, unit=progress.unit, metrics=""
            )
        self._bar.update(
            self._lines[progress.stage],
            completed=progress.done,
            total=progress.total,
            unit=progress.unit,
            metrics=_metrics(progress),
        )

    def close(self) -> None:
        self._bar.stop()


class _LogLines:
    """A line every ten seconds, where there is no terminal to draw in."""

    def __init__(self) -> None:
        self._next = time.monotonic() + LOG_EVERY_S

    def show(self, progress: Progress) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LOG_EVERY_S
        logger.info(
            "%s: %d of %d %s  %s",
            progress.stage,
            progress.done,
            progress.total,
            progress.unit,
            _metrics(progress),
        )

    def close(self) -> None:
        pass


class _ProgressArtifact:
    """A progress bar in the UI of Prefect; outside a task run, nothing."""

    def __init__(self, stage: str) -> None:
        self._key = f"progress-{stage}"
        self._in_run = TaskRunContext.get() is not None
        self._id: UUID | None = None
        self._next = time.monotonic() + ARTIFACT_EVERY_S

    def show(self, progress: Progress) -> None:
        finished = self._id is not None and progress.done >= progress.total
        if not self._in_run or (time.monotonic() < self._next and not finished):
            return
        self._next = time.monotonic() + ARTIFACT_EVERY_S
        percent = 100.0 * progress.done / max(progress.total, 1)
        text = f"{progress.done} of {progress.total} {progress.unit}  {_metrics(progress)}"
        if self._id is None:
            created = create_progress_artifact(percent, key=self._key, description=text)
            self._id = cast("UUID", created)  # a coroutine only within async code
        else:
            update_progress_artifact(self._id, progress=percent, description=text)
