"""Small files of a bucket or another remote place; see `small_files`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fsspec import AbstractFileSystem

from cxrmodel.storage.remote import RemoteFiles
from cxrmodel.storage.small_files import digest_of

S3 = ("s3", "s3a")
CHANGED = (409, 412)  # another writer is at it, or has been


class RemoteSmallFiles:
    """Small files below a path of a remote file system.

    Args:
        files: The file system.
        path: The place in it, without a protocol.
    """

    def __init__(self, files: AbstractFileSystem, path: str) -> None:
        self._fs, self._path = files, path.rstrip("/")
        self._remote = RemoteFiles(files)
        protocol = files.protocol if isinstance(files.protocol, tuple) else (files.protocol,)
        self._is_s3 = any(name in S3 for name in protocol)

    def find(self) -> dict[str, int]:
        """See `SmallFiles`."""
        found = self._remote.find(self._path)
        return {
            path.removeprefix(f"{self._path}/"): int(details["size"])
            for path, details in found.items()
        }

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """See `SmallFiles`."""
        paths = {f"{self._path}/{name}": name for name in names}
        found = self._remote.read(list(paths))
        return {paths[path]: content for path, content in found.items()}

    def read_versioned(self, name: str) -> tuple[bytes, str] | None:
        """See `SmallFiles`."""
        path = f"{self._path}/{name}"
        try:
            # First the version: with that of a file that is replaced now, `replace` refuses.
            etag = self._etag(path) if self._is_s3 else ""
            content = self._remote.read([path])[path]
        except FileNotFoundError:
            return None
        return content, etag or digest_of(content)

    def write(self, name: str, content: bytes) -> None:
        """See `SmallFiles`."""
        self._remote.write(f"{self._path}/{name}", content)

    def replace(self, name: str, content: bytes, version: str | None) -> bool:
        """See `SmallFiles`."""
        condition: dict[str, Any] = {}
        if self._is_s3:
            # Without quotes, which Ceph takes for a part of the ETag.
            condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        else:
            found = self.read_versioned(name)
            if (found and found[1]) != version:
                return False
        try:
            self._remote.write(f"{self._path}/{name}", content, **condition)
        except OSError as error:
            if _has_changed(error):
                return False
            raise
        return True

    def remove(self, name: str) -> None:
        """See `SmallFiles`."""
        self._remote.remove(f"{self._path}/{name}")

    def _etag(self, path: str) -> str:
        return str(self._remote.details(path)["ETag"]).strip('"')


def _has_changed(error: BaseException | None) -> bool:
    """Say whether a store refused a write for its condition."""
    while error is not None:
        answer = getattr(error, "response", {}).get("ResponseMetadata", {})
        if answer.get("HTTPStatusCode") in CHANGED or isinstance(error, FileExistsError):
            return True
        error = error.__cause__
    return False
