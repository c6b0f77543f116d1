"""Progress and results of the library, shown in the terminal and in Prefect."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import PrefectException
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
CLOSE_S = 3.0  # a server that is down must not delay the end of a stage or a cancellation
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
    """Give a callable that shows progress as a bar or as log lines, and as a Prefect artifact."""
    artifact = _ProgressArtifact(stage)
    terminal = _TerminalBar() if sys.stderr.isatty() else _LogLines()

    def report(progress: Progress) -> None:
        terminal.show(progress)
        artifact.show(progress)

    try:
        yield report
    finally:
        terminal.close()
        artifact.close()


def _details(progress: Progress) -> str:
    metrics = (f"{name} {value:.4g}" for name, value in progress.metrics.items())
    return "  ".join([*filter(None, [progress.doing]), *metrics])


class _TerminalBar:
    """A bar per stage, gone when the work is done."""

    def __init__(self) -> None:
        self._bar = Bar(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}  {task.fields[details]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._lines: dict[str, TaskID] = {}
        self._bar.start()

    def show(self, progress: Progress) -> None:
        if progress.stage not in self._lines:
            self._lines[progress.stage] = self._bar.add_task(
                progress.stage, total=progress.total, unit=progress.unit, details=""
            )
        self._bar.update(
            self._lines[progress.stage],
            completed=progress.done,
            total=progress.total,
            unit=progress.unit,
            details=_details(progress),
        )

    def close(self) -> None:
        self._bar.stop()


class _LogLines:
    """A line every ten seconds and for each new kind of work, where there is no terminal."""

    def __init__(self) -> None:
        self._next, self._doing = time.monotonic() + LOG_EVERY_S, ""

    def show(self, progress: Progress) -> None:
        if time.monotonic() < self._next and progress.doing == self._doing:
            return
        self._next, self._doing = time.monotonic() + LOG_EVERY_S, progress.doing
        logger.info(
            "%s: %d of %d %s  %s",
            progress.stage,
            progress.done,
            progress.total,
            progress.unit,
            _details(progress),
        )

    def close(self) -> None:
        pass


class _ProgressArtifact:
    """A progress bar in the UI of Prefect; outside a task run, nothing.

    A thread of its own tells the server: one that is slow or down must not stop a training.
    """

    def __init__(self, stage: str) -> None:
        self._key = f"progress-{stage}"
        self._in_run = TaskRunContext.get() is not None
        self._begins_at = time.monotonic() + ARTIFACT_EVERY_S
        self._latest: Progress | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def show(self, progress: Progress) -> None:
        self._latest = progress
        if self._in_run and self._thread is None and time.monotonic() >= self._begins_at:
            within_run = contextvars.copy_context()
            self._thread = threading.Thread(
                target=within_run.run, args=(self._tell,), name=self._key, daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        if self._thread is not None:
            self._closing.set()
            self._thread.join(CLOSE_S)

    def _tell(self) -> None:
        """Send the latest progress every few seconds, and once more at the end."""
        artifact: UUID | None = None
        sent: Progress | None = None
        was_silent = is_last = False
        while not is_last:
            is_last, latest = self._closing.is_set(), self._latest
            if latest is not None and latest is not sent:
                try:
                    artifact, sent = self._send(latest, artifact), latest
                except (httpx.HTTPError, PrefectException) as error:
                    if not was_silent:
                        logger.warning("%s: the server does not answer: %s", self._key, error)
                    was_silent = True
            self._closing.wait(ARTIFACT_EVERY_S)

    def _send(self, progress: Progress, artifact: UUID | None) -> UUID:
        percent = 100.0 * progress.done / max(progress.total, 1)
        text = f"{progress.done} of {progress.total} {progress.unit}  {_details(progress)}"
        if artifact is None:
            created = create_progress_artifact(percent, key=self._key, description=text)
            return cast("UUID", created)  # a coroutine only within async code
        update_progress_artifact(artifact, progress=percent, description=text)
        return artifact
