"""Small files of one place, a folder or a URL: each appears whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cxrmodel.errors import StoreError

LOCK = ".lock"
PARTIAL = ".partial"


class SmallFiles(Protocol):
    """Files by their names relative to one place; names are separated by '/'."""

    def find(self) -> dict[str, int]:
        """Return the size in bytes of each file, by name; none where the place does not exist."""
        ...

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the content of files, by name.

        Raises:
            FileNotFoundError: One of them is not there.
        """
        ...

    def read_versioned(self, name: str) -> tuple[bytes, str] | None:
        """Return a file's content and its version, for `replace`; None where it is not there."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or write it anew."""
        ...

    def replace(self, name: str, content: bytes, version: str | None) -> bool:
        """Write a file unless somebody else has in the meantime.

        A folder and S3 guarantee it for writers that come at the same instant too; on another
        store the version is compared just before the file is written.

        Args:
            name: Which file.
            content: All of it.
            version: As it was read; None: there was none.

        Returns:
            Whether it was written.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file; one that is gone already is as good."""
        ...


def open_small_files(place: str) -> SmallFiles:
    """Return the files of a folder or URL, which need not exist.

    Raises:
        StoreError: No file system for such a URL is known or installed.
    """
    try:
        files, path = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError, TypeError, IsADirectoryError) as error:
        raise StoreError(
            f"{place} cannot be opened: {error}. Give a folder, or the URL of a protocol whose "
            "package is installed, as s3://bucket/prefix."
        ) from error
    if isinstance(files, LocalFileSystem):
        return LocalSmallFiles(Path(path))
    # Here, since it needs packages that a local place does without.
    from cxrmodel.storage.remote_small_files import RemoteSmallFiles  # noqa: PLC0415

    return RemoteSmallFiles(files, path)


class LocalSmallFiles:
    """Small files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self) -> dict[str, int]:
        """See `SmallFiles`."""
        sizes = {}
        for path in sorted(self._folder.rglob("*")):
            with suppress(FileNotFoundError):  # removed since it was listed
                if path.is_file() and not path.name.startswith("."):
                    sizes[path.relative_to(self._folder).as_posix()] = path.stat().st_size
        return sizes

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """See `SmallFiles`."""
        return {name: (self._folder / name).read_bytes() for name in names}

    def read_versioned(self, name: str) -> tuple[bytes, str] | None:
        """See `SmallFiles`."""
        try:
            content = (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        return content, digest_of(content)

    def write(self, name: str, content: bytes) -> None:
        """See `SmallFiles`."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def replace(self, name: str, content: bytes, version: str | None) -> bool:
        """See `SmallFiles`."""
        with self._locked():
            found = self.read_versioned(name)
            if (found and found[1]) != version:
                return False
            self.write(name, content)
            return True

    def remove(self, name: str) -> None:
        """See `SmallFiles`."""
        (self._folder / name).unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time in; the lock ends with its process."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def digest_of(content: bytes) -> str:
    """Return the sha256 of a content, its version where the store keeps none."""
    return hashlib.sha256(content).hexdigest()
