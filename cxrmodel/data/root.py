"""The folder or bucket that holds a data set: one listing, and single reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    HTTPClientError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from fsspec.implementations.local import LocalFileSystem

from cxrmodel.errors import DataError

LISTED_SUFFIXES = (".png", ".csv", ".txt")

UNREACHABLE = (HTTPClientError, BotoConnectionError)  # neither is an OSError

CREDENTIALS = (
    "Credentials come from the cloud's own chain (for S3: environment, profile or role; "
    "AWS_ENDPOINT_URL for another endpoint)."
)


@dataclass(frozen=True, order=True, slots=True)
class ListedFile:
    """One file of a listing.

    Attributes:
        uri: Path relative to the root, '/'-separated.
        bytes: Size.
        version: ETag, or modification time in nanoseconds, or whatever the store offers.
    """

    uri: str
    bytes: int
    version: str


@contextmanager
def explained(location: str, action: str) -> Iterator[None]:
    """Turn a store's refusals into DataErrors; a store out of reach stays an OSError.

    Args:
        location: Path or URL, for the message.
        action: What was being done, as in `list`.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise DataError(f"Cannot {action} {location}: it does not exist ({error}).") from error
    except PermissionError as error:
        hint = f" {CREDENTIALS}" if "://" in location else ""
        raise DataError(f"Cannot {action} {location}: access is denied ({error}).{hint}") from error
    except UNREACHABLE as error:
        raise ConnectionError(f"Cannot {action} {location}: {error}") from error
    except BotoCoreError as error:
        raise DataError(f"Cannot {action} {location}: {error}. {CREDENTIALS}") from error
    except (ImportError, ValueError) as error:  # a protocol that is unknown or not installed
        raise DataError(f"Cannot {action} {location}: {error}") from error


class Root:
    """A folder or any fsspec URL.

    Args:
        root: As configured.

    Raises:
        DataError: No file system for such a URL is known or installed.
    """

    def __init__(self, root: str) -> None:
        with explained(root, "open"):
            self._fs, self._path = fsspec.core.url_to_fs(root)
        self.root = root
        self.is_local = isinstance(self._fs, LocalFileSystem)
        self.skipped_links = 0

    def files(self) -> list[ListedFile]:
        """List the images, tables and lists below the root, sorted, in one sweep.

        Links that lead out of the root are not followed, and counted in `skipped_links`.
        """
        with explained(self.root, "list"):
            return sorted(self._walk(Path(self._path)) if self.is_local else self._find())

    def read(self, uri: str, limit: int | None = None) -> bytes:
        """Return a file's bytes, or the first `limit` of them, in one request.

        Raises:
            FileNotFoundError: It is gone.
            OSError: It cannot be reached.
        """
        if self.is_local:
            with Path(self._path, uri).open("rb") as stream:
                return stream.read() if limit is None else stream.read(limit)
        # A range costs one request; without one, s3fs first asks for the size.
        part = {} if limit is None else {"start": 0, "end": limit}
        try:
            return bytes(self._fs.cat_file(f"{self._path}/{uri}", **part))
        except UNREACHABLE as error:
            raise ConnectionError(str(error)) from error

    def exists(self) -> bool:
        """Tell whether the root is still there."""
        self._fs.invalidate_cache()
        return bool(self._fs.exists(self._path))

    def _find(self) -> Iterator[ListedFile]:
        self._fs.invalidate_cache()  # fsspec remembers listings for as long as the process lives
        found = self._fs.find(self._path, detail=True)
        self._fs.invalidate_cache()
        prefix = f"{self._path.rstrip('/')}/"
        for path, info in found.items():
            uri = path.removeprefix(prefix)
            if uri.casefold().endswith(LISTED_SUFFIXES) and info["type"] == "file":
                yield ListedFile(_printable(uri), int(info["size"]), _version(info))

    def _walk(self, top: Path) -> Iterator[ListedFile]:
        real_top = top.resolve(strict=True)
        folders = [(str(top), "")]
        while folders:
            folder, prefix = folders.pop()
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((entry.path, f"{prefix}{entry.name}/"))
                    elif self._is_listed(entry, real_top):
                        with suppress(FileNotFoundError):  # gone since the folder was read
                            status = entry.stat()
                            uri = _printable(prefix + entry.name)
                            yield ListedFile(uri, status.st_size, str(status.st_mtime_ns))

    def _is_listed(self, entry: os.DirEntry[str], real_top: Path) -> bool:
        # What a link to a folder below the root holds is met in that folder itself.
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(real_top):
            self.skipped_links += 1
            return False
        return entry.name.casefold().endswith(LISTED_SUFFIXES) and entry.is_file()


def _version(info: dict[str, Any]) -> str:
    known = (
        info.get(key) for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created")
    )
    return str(next((value for value in known if value is not None), "")).strip('"')


def _printable(uri: str) -> str:
    # Names that are not UTF-8 cannot be stored in Parquet, nor can a CSV in UTF-8 name them.
    return uri.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
