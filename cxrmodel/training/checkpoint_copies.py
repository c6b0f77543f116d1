"""Copies of checkpoints in the store, for an attempt that runs on another machine."""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import aiohttp
import botocore.exceptions  # type: ignore[import-untyped]

from cxrmodel.errors import StoreError
from cxrmodel.storage.remote import RemoteFolder

KEPT = 2  # the last one, and the one before it in case the last is damaged
FINAL_WAIT_S = 20.0  # an evicted container is given half a minute
OUT_OF_REACH = (
    OSError,
    aiohttp.ClientError,
    botocore.exceptions.BotoCoreError,
    botocore.exceptions.HTTPClientError,
    StoreError,
)
STEP, BEST_EPOCH = "step", "best-epoch"
SUFFIX = ".copy"  # a local file that is being sent to the store
_NAME = re.compile(rf"({STEP}|{BEST_EPOCH})-(\d{{10}})\.safetensors")

logger = logging.getLogger(__name__)


def copy_name(kind: str, number: int) -> str:
    """Return the name in the store of a checkpoint, by its step or its best epoch."""
    return f"{kind}-{number:010d}.safetensors"


class CheckpointCopies:
    """Sends checkpoints to the store while training continues, and fetches them back.

    A copy that cannot be made costs a warning, never the training. One copy is made at a time; a
    checkpoint that arrives meanwhile, or too soon after the last copy, is not copied.

    Args:
        folder: Where in the store.
        every_s: Seconds from the start of one copy to that of the next.
    """

    def __init__(self, folder: RemoteFolder, every_s: float) -> None:
        self._folder, self._every_s = folder, every_s
        self._thread: threading.Thread | None = None
        self._started_at = -every_s

    def send(self, files: dict[str, Path], step: int) -> None:
        """Copy checkpoints in the background, unless a copy is being made or was made recently.

        Args:
            files: Local path by name in the store, in the order to copy them in.
            step: Step of the newest one.
        """
        if time.monotonic() - self._started_at >= self._every_s and not self._is_busy():
            self._start(files, step)

    def finish(self, files: dict[str, Path], step: int) -> None:
        """Copy checkpoints if they are not there yet, and wait some seconds for it.

        For the end of an attempt: nobody is left then to send what is under way.

        Args:
            files: As of `send`.
            step: As of `send`.
        """
        deadline = time.monotonic() + FINAL_WAIT_S
        self._wait(deadline)
        if not self._is_busy():
            self._start(files, step)
            self._wait(deadline)
        if self._is_busy():
            logger.warning(
                "Checkpoints in the store: step %d was not copied within %.0f s. An attempt on "
                "another machine goes on from an older one, if there is one.",
                step,
                FINAL_WAIT_S,
            )

    def newer_than(self, step: int) -> list[str]:
        """Return the names of the checkpoints that are further than a step, the newest first."""
        return [name for number, name in self._found(STEP) if number > step]

    def fetch(self, name: str, local: Path) -> bool:
        """Copy a checkpoint from the store to a local path, and say whether that worked."""
        return self._attempt(f"fetch {name}", partial(self._folder.get, name, local))

    def clear(self) -> None:
        """Delete all of them: the training has been published."""
        self._wait(time.monotonic() + FINAL_WAIT_S)
        found = [*self._found(STEP), *self._found(BEST_EPOCH)]
        self._attempt("delete the copies", lambda: self._remove([name for _, name in found]))

    def _start(self, files: dict[str, Path], step: int) -> None:
        self._started_at = time.monotonic()
        # The training may replace the files while they are sent.
        kept = {name: path.with_name(f"{uuid.uuid4().hex}{SUFFIX}") for name, path in files.items()}
        pairs = [(files[name], kept[name]) for name in files]
        if not self._attempt(f"copy step {step}", lambda: _keep(pairs)):
            _delete(kept.values())
            return
        self._thread = threading.Thread(target=self._send, args=(kept, step), daemon=True)
        self._thread.start()

    def _send(self, kept: dict[str, Path], step: int) -> None:
        try:
            if self._attempt(f"copy step {step}", lambda: self._put(kept)):
                self._attempt("delete older copies", self._prune)
        finally:
            _delete(kept.values())

    def _put(self, kept: dict[str, Path]) -> None:
        there = self._folder.names()
        for name, path in kept.items():
            if name not in there:
                self._folder.put(path, name)

    def _prune(self) -> None:
        for kind in (STEP, BEST_EPOCH):
            self._remove([name for _, name in self._found(kind)[KEPT:]])

    def _remove(self, names: list[str]) -> None:
        for name in names:
            self._folder.remove(name)

    def _found(self, kind: str) -> list[tuple[int, str]]:
        matches = [_NAME.fullmatch(name) for name in self._names()]
        found = [(int(m.group(2)), m.group(0)) for m in matches if m and m.group(1) == kind]
        return sorted(found, reverse=True)

    def _names(self) -> list[str]:
        names: list[str] = []
        self._attempt("list the copies", lambda: names.extend(self._folder.names()))
        return names

    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _wait(self, deadline: float) -> None:
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _attempt(self, what: str, action: Callable[[], None]) -> bool:
        try:
            action()
        except OUT_OF_REACH as error:
            logger.warning("Checkpoints in the store: could not %s (%s).", what, error)
            return False
        return True


def _keep(pairs: list[tuple[Path, Path]]) -> None:
    for path, kept in pairs:
        try:
            os.link(path, kept)
        except OSError:  # FAT, some network and FUSE file systems have no hard links
            shutil.copyfile(path, kept)


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
