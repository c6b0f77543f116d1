"""Copies of checkpoints in the store, for an attempt that runs on another machine."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import aiohttp
import botocore.exceptions  # type: ignore[import-untyped]

from cxrmodel.errors import StoreError
from cxrmodel.remote_folder import RemoteFolder

KEPT = 2  # the last one, and the one before it in case the last is damaged
FINAL_WAIT_S = 20.0  # of the half minute that an evicted container is given
OUT_OF_REACH = (
    OSError,
    aiohttp.ClientError,
    botocore.exceptions.BotoCoreError,
    botocore.exceptions.HTTPClientError,
    StoreError,
)
STEP, BEST_EPOCH = "step", "best-epoch"
_NAME = re.compile(rf"({STEP}|{BEST_EPOCH})-(\d{{10}})\.safetensors")

logger = logging.getLogger(__name__)


def copy_name(kind: str, number: int) -> str:
    """Return the name in the store of the checkpoint of a step, or of a best epoch."""
    return f"{kind}-{number:010d}.safetensors"


class CheckpointCopies:
    """Sends checkpoints to the store beside the training, and fetches them back.

    A copy that cannot be made costs a warning, never the training. One copy is under way at a
    time; a checkpoint that comes meanwhile is left out, and so is one that comes too soon.

    Args:
        folder: Where in the store.
        every_s: Seconds from the start of one copy to that of the next.
    """

    def __init__(self, folder: RemoteFolder, every_s: float) -> None:
        self._folder, self._every_s = folder, every_s
        self._thread: threading.Thread | None = None
        self._started_at = -every_s

    def send(self, files: dict[str, Path], step: int, *, wait: bool = False) -> None:
        """Copy checkpoints in the background, unless others are on their way or just were.

        Args:
            files: Local path by name in the store, in the order to copy them in.
            step: The newest one's.
            wait: Copy in any case, and give it some seconds: the attempt ends here.
        """
        if wait:
            self._wait()
        is_due = time.monotonic() - self._started_at >= self._every_s
        if (wait or is_due) and not self._is_busy():
            self._start(files, step)
        if wait:
            self._wait()

    def restore(self, last: Path, previous: Path, best: Path, *, step: int) -> bool:
        """Fetch the copies that are further than a step, and the best epoch's; say whether any was.

        Args:
            last: Local path for the newest.
            previous: Local path for the one before it.
            best: Local path for the weights of the best epoch.
            step: How far the local checkpoint is; 0 where there is none.
        """
        newer = [name for number, name in self._found(STEP) if number > step]
        for name, path in zip(newer, (last, previous), strict=False):
            self._attempt(f"fetch {name}", partial(self._fetch, name, path))
        for _, name in self._found(BEST_EPOCH)[: 1 if newer else 0]:
            self._attempt(f"fetch {name}", partial(self._fetch, name, best))
        return bool(newer)

    def clear(self) -> None:
        """Delete all of them: the training has been published."""
        self._wait()
        found = [*self._found(STEP), *self._found(BEST_EPOCH)]
        self._attempt("delete the copies", lambda: self._remove([name for _, name in found]))

    def _start(self, files: dict[str, Path], step: int) -> None:
        self._started_at = time.monotonic()
        # Links keep these very files while the training goes on to replace them.
        links = {name: path.with_name(f"{uuid.uuid4().hex}.copy") for name, path in files.items()}
        for name, link in links.items():
            os.link(files[name], link)
        self._thread = threading.Thread(target=self._send, args=(links, step), daemon=True)
        self._thread.start()

    def _send(self, links: dict[str, Path], step: int) -> None:
        try:
            if self._attempt(f"copy step {step}", lambda: self._put(links)):
                self._attempt("delete older copies", self._prune)
        finally:
            for link in links.values():
                link.unlink(missing_ok=True)

    def _put(self, links: dict[str, Path]) -> None:
        there = self._folder.names()
        for name, link in links.items():
            if name not in there:
                self._folder.put(link, name)

    def _prune(self) -> None:
        for kind in (STEP, BEST_EPOCH):
            self._remove([name for _, name in self._found(kind)[KEPT:]])

    def _remove(self, names: list[str]) -> None:
        for name in names:
            self._folder.remove(name)

    def _fetch(self, name: str, local: Path) -> None:
        local.parent.mkdir(parents=True, exist_ok=True)
        part = local.with_name(f"{uuid.uuid4().hex}.copy")
        try:
            self._folder.get(name, part)
            part.replace(local)
        finally:
            part.unlink(missing_ok=True)

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

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join(FINAL_WAIT_S)

    def _attempt(self, what: str, action: Callable[[], None]) -> bool:
        try:
            action()
        except OUT_OF_REACH as error:
            logger.warning("Checkpoints in the store: could not %s (%s).", what, error)
            return False
        return True
