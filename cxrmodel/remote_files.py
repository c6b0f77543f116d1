"""Files in a remote store, asked for until it answers, and fetched until they are right."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

from cxrmodel.errors import DamagedArtifactError
from cxrmodel.patience import NUM_READS, patiently

logger = logging.getLogger(__name__)


class RemoteFiles:
    """The few operations that the store needs, each repeated while a file system cannot be reached.

    Args:
        fs: Of the store; its paths have no protocol.
    """

    def __init__(self, fs: AbstractFileSystem) -> None:
        self._fs = fs

    def find(self, folder: str) -> dict[str, dict[str, Any]]:
        """Return what is known of each file below a folder, by path."""
        self._fs.invalidate_cache()
        found: dict[str, dict[str, Any]] = self._ask(
            "Listing", folder, lambda: self._fs.find(folder, detail=True)
        )
        return found

    def put(self, local: Path, path: str) -> None:
        """Copy a local file, which appears whole or not at all."""
        folder = path.rsplit("/", 1)[0]
        self._ask("Writing", folder, lambda: self._fs.makedirs(folder, exist_ok=True))
        self._ask("Writing", path, lambda: self._fs.put_file(str(local), path))

    def fetch(self, path: str, local: Path, is_right: Callable[[Path], bool]) -> None:
        """Copy a file to a local path, again where it comes damaged.

        Raises:
            DamagedArtifactError: It came damaged `NUM_READS` times.
        """
        for _ in range(NUM_READS):
            self._ask("Reading", path, lambda: self._fs.get_file(path, str(local)))
            if is_right(local):
                return
            logger.warning("%s came damaged: reading it again", path)
        raise DamagedArtifactError(
            f"{self._fs.unstrip_protocol(path)} does not have the checksum of its manifest. "
            "Delete its folder and run again to rebuild it."
        )

    def _ask(self, doing: str, path: str, send: Callable[[], Any]) -> Any:
        what = f"{doing} {self._fs.unstrip_protocol(path)}"
        try:
            return patiently(what, send)
        except PermissionError as error:
            raise PermissionError(f"{what} was refused: {error}") from error
