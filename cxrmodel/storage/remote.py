"""Files in a remote store: published ones, and those that are not an artifact yet.

Both say in their errors what was done where. Only `RemoteFiles` repeats a request, since a run
waits for it; what goes through a `RemoteFolder` is optional.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
)
from fsspec import AbstractFileSystem

from cxrmodel.errors import DamagedArtifactError, StoreError
from cxrmodel.storage.retry import NUM_READS, patiently

logger = logging.getLogger(__name__)


class RemoteFiles:
    """The operations that the store needs, each repeated while a file system cannot be reached.

    Args:
        fs: File system of the store; its paths have no protocol.
    """

    def __init__(self, fs: AbstractFileSystem) -> None:
        self._fs = fs

    def find(self, folder: str) -> dict[str, dict[str, Any]]:
        """Return the details of each file below a folder, by path."""
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

    def details(self, path: str) -> dict[str, Any]:
        """Return the details of one file, asked for anew."""
        self._fs.invalidate_cache()
        found: dict[str, Any] = self._ask("Looking at", path, lambda: self._fs.info(path))
        return found

    def read(self, paths: list[str]) -> dict[str, bytes]:
        """Return the contents of small files, by path."""
        if not paths:
            return {}
        found = self._ask("Reading", paths[0], lambda: self._fs.cat(paths))
        return dict(found) if isinstance(found, dict) else {paths[0]: bytes(found)}

    def write(self, path: str, content: bytes, **condition: str) -> None:
        """Write a small file, which appears whole or not at all.

        Args:
            path: Where.
            content: All of it.
            condition: What must hold for the store to accept it, as the file system names it.
        """
        folder = path.rsplit("/", 1)[0]
        self._ask("Writing", folder, lambda: self._fs.makedirs(folder, exist_ok=True))
        self._ask("Writing", path, lambda: self._fs.pipe_file(path, content, **condition))

    def remove(self, path: str) -> None:
        """Remove a file; one that is gone already is as good."""
        with suppress(FileNotFoundError):
            self._ask("Deleting", path, lambda: self._fs.rm_file(path))

    def fetch(self, path: str, local: Path, is_intact: Callable[[Path], bool]) -> None:
        """Copy a file to a local path, and again if it arrives damaged.

        Raises:
            DamagedArtifactError: It arrived damaged `NUM_READS` times.
        """
        for _ in range(NUM_READS):
            try:
                self._ask("Reading", path, lambda: self._fs.get_file(path, str(local)))
            except FlexibleChecksumError:  # the store's own checksum, as good as `is_intact`
                pass
            else:
                if is_intact(local):
                    return
            logger.warning("%s came damaged: reading it again", path)
        raise DamagedArtifactError(
            f"{self._fs.unstrip_protocol(path)} does not have the checksum of its manifest. "
            "Delete its folder and run again to rebuild it."
        )

    def _ask(self, doing: str, path: str, send: Callable[[], Any]) -> Any:
        what = f"{doing} {self._fs.unstrip_protocol(path)}"
        with _naming(what):
            return patiently(what, send)


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
        return _naming(f"{doing} {self._fs.unstrip_protocol(path)}")


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Make the errors of a file system say what was done where; an error keeps its type.

    Args:
        what: For example `Writing s3://bucket/store/vae`.

    Raises:
        StoreError: The store's setting or its file system does not work.
    """
    try:
        yield
    except PermissionError as error:
        raise PermissionError(f"{what} was refused: {error}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{what}: it is not there ({error})") from error
    except FlexibleChecksumError:  # it is requested again
        raise
    except OSError as error:
        # It names a file of this machine, or `patiently` has named the action already.
        if error.filename is not None or str(error).startswith(what):
            raise
        if isinstance(error, ConnectionError):
            raise ConnectionError(f"{what} failed: {error}") from error
        number = () if error.errno is None else (error.errno,)
        raise OSError(*number, f"{what} failed: {error}") from error
    except (BotoCoreError, ClientError, LookupError, TypeError, ValueError) as error:
        raise StoreError(
            f"{what} failed: {type(error).__name__}: {error}. Look at store.root, and at the "
            "credentials and address that the environment gives its client."
        ) from error
