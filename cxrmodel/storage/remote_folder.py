"""A folder of files in a remote store, for what is not an artifact yet."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from fsspec import AbstractFileSystem

from cxrmodel.storage.remote_files import explained


class RemoteFolder:
    """Files by name, each of which appears whole or not at all.

    Args:
        fs: The store's file system.
        path: The folder's path in it; made by the first file.
    """

    def __init__(self, fs: AbstractFileSystem, path: str) -> None:
        self._fs, self._path = fs, path

    def names(self) -> list[str]:
        """Return the names of its files, sorted; none where there is no such folder."""
        self._fs.invalidate_cache()
        try:
            with self._explained("Listing"):
                return sorted(path.rsplit("/", 1)[-1] for path in self._fs.find(self._path))
        except FileNotFoundError:
            return []

    def put(self, local: Path, name: str) -> None:
        """Copy a local file to it."""
        with self._explained("Writing", name):
            self._fs.makedirs(self._path, exist_ok=True)
            self._fs.put_file(str(local), f"{self._path}/{name}")

    def get(self, name: str, local: Path) -> None:
        """Copy one of its files to a local path, whose folder must exist."""
        with self._explained("Reading", name):
            self._fs.get_file(f"{self._path}/{name}", str(local))

    def remove(self, name: str) -> None:
        """Delete one of its files."""
        with self._explained("Deleting", name):
            self._fs.rm_file(f"{self._path}/{name}")

    def _explained(self, doing: str, name: str = "") -> AbstractContextManager[None]:
        path = f"{self._path}/{name}".rstrip("/")
        return explained(f"{doing} {self._fs.unstrip_protocol(path)}")
