"""What lies below a URL of any protocol that fsspec knows: web servers, archives, other clouds."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote

import aiohttp
import fsspec

from cxrmodel.errors import ChecksumError, DataError

NUM_CONNECTIONS = 16
FORBIDDEN = (401, 403)
VERSION_KEYS = (
    "ETag", "etag", "md5Hash", "CRC", "mtime", "LastModified", "Last-Modified", "created"
)  # fmt: skip

EXTRAS = {"gs": "gcs", "gcs": "gcs"}
"""Protocols whose package an extra of this project installs."""


class FsspecPrefix:
    """Files below a URL, by names relative to it; safe to use from threads.

    Args:
        url: As fsspec understands it, chains such as `zip::https://host/films.zip` included.
        suffixes: Ends of the names, in lower case, of the files to list.

    Raises:
        DataError: The protocol is unknown or its package not installed, or an archive is none.
        OSError: It cannot be reached.
    """

    def __init__(self, url: str, suffixes: tuple[str, ...]) -> None:
        # A cached archive would be the one that lay there when this process first opened it.
        options = {"skip_instance_cache": True} if url.startswith("zip:") else {}
        try:
            self._fs, self._path = fsspec.core.url_to_fs(url, **options)
        except (ImportError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"Cannot open {url}: {error}{extra_hint(error, url)}") from error
        self.url, self.suffixes = url, suffixes
        self._is_web = url.startswith(("http://", "https://"))

    def objects(self) -> Iterator[tuple[str, int, str]]:
        """Yield name, size in bytes and version of each file to list.

        Raises:
            DataError: It is a web server that does not list its folders.
            FileNotFoundError: There is no such place.
            OSError: It cannot be reached.
        """
        self._fs.invalidate_cache()  # fsspec remembers listings for as long as the process lives
        with web_errors():
            found = self._fs.find(self._path, detail=True)
        self._fs.invalidate_cache()
        listed = {
            path: info
            for path, info in found.items()
            if info.get("type") == "file" and path.casefold().endswith(self.suffixes)
        }
        if self._is_web:
            if not listed:
                raise DataError(
                    f"{self.url} lists no images and no tables: as data.root, a web server has to "
                    "show each folder as a page of links."
                )
            listed = self._described(list(listed))
        for path, info in listed.items():
            yield self._name(path), int(info["size"]), _version(info)

    def read(self, name: str, limit: int | None = None, *, version: str = "") -> bytes:
        """Return a file's bytes, or the first `limit` of them, of whatever version.

        Raises:
            FileNotFoundError: It is gone.
            PermissionError: Access is denied.
            ChecksumError: The archive that holds it is damaged there.
            OSError: It cannot be reached.
        """
        # A range costs one request; without one, some file systems first ask for the size.
        part = {} if limit is None else {"start": 0, "end": limit}
        name = quote(name) if self._is_web else name
        try:
            with web_errors():
                return bytes(self._fs.cat_file(f"{self._path.rstrip('/')}/{name}", **part)[:limit])
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ChecksumError(f"{name} of {self.url} is damaged: {error}") from error

    def exists(self) -> bool:
        """Tell whether anything is still there."""
        self._fs.invalidate_cache()
        return bool(self._fs.exists(self._path))

    def _name(self, path: str) -> str:
        name = path.removeprefix(f"{self._path.rstrip('/')}/")
        return unquote(name) if self._is_web else name

    def _described(self, paths: list[str]) -> dict[str, dict[str, Any]]:
        """Ask for sizes and versions, which a page of links does not tell."""
        with web_errors(), ThreadPoolExecutor(NUM_CONNECTIONS, "describe") as pool:
            return dict(zip(paths, pool.map(self._fs.info, paths), strict=True))


@contextmanager
def web_errors() -> Iterator[None]:
    """Make the errors of a web client those of a file system."""
    try:
        yield
    except aiohttp.ClientResponseError as error:
        kind = PermissionError if error.status in FORBIDDEN else ConnectionError
        raise kind(f"{error.request_info.real_url}: {error.status} {error.message}") from error
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error) or type(error).__name__) from error


def extra_hint(error: Exception, url: str) -> str:
    """Return which extra of this project to install, where that is what is missing."""
    if not isinstance(error, ImportError):
        return ""
    protocols = (link.partition("://")[0] for link in url.split("::"))
    names = (EXTRAS[protocol] for protocol in protocols if protocol in EXTRAS)
    return "".join(f". Install the extra: pip install 'cxrmodel[{name}]'." for name in names)


def _version(info: dict[str, Any]) -> str:
    known = (info.get(key) for key in VERSION_KEYS)
    return str(next((value for value in known if value is not None), "")).strip('"')
