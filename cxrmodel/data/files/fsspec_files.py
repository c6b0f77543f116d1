"""What lies below a URL of any protocol that fsspec knows: web servers, archives, other clouds."""

from __future__ import annotations

import html
import lzma
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any
from urllib.parse import quote, unquote

import aiohttp
import fsspec

from cxrmodel.data.files.listing import Oddities, Oddity, is_listed
from cxrmodel.errors import ChecksumError, DataError, UnreadableFileError

ARCHIVES = ("zip", "tar", "libarchive")
UNPACK = "Unpack the archive into a folder and set data.root to that."

IN_PLACE = {".zip": "zip", ".tar": "tar"}
COMPRESSED_TAR = (
    ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst",
    ".tar.lzma", ".tar.z",
)  # fmt: skip
OTHER = (*COMPRESSED_TAR, ".7z", ".rar")


NUM_CONNECTIONS = 16
FORBIDDEN, NOT_THERE = (401, 403), (404, 410)
VERSION_KEYS = (
    "ETag", "etag", "md5Hash", "CRC", "mtime", "LastModified", "Last-Modified", "created"
)  # fmt: skip

EXTRAS = {"gs": "gcs", "gcs": "gcs"}
"""Protocols whose package an extra of this project installs."""

WEB = ("http", "https")
CACHES = ("simplecache", "filecache", "blockcache", "cached")
CONCURRENT = (*WEB, "gs", "gcs", "az", "abfs", "zip")
"""Protocols from which several threads may read at once.

Network file systems send from one event loop, and `zipfile` has a lock. No other protocol promises
it, and `tarfile` and a connection of FTP give a thread the bytes that another one asked for: from
those, one file is read at a time.
"""

DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, struct.error
)  # fmt: skip
NOT_UNPACKED = (NotImplementedError, RuntimeError, LookupError, AttributeError, ValueError)
"""Of a member: a method that zipfile lacks, a password, a link in a tar archive to nothing."""

NO_ARCHIVE = ". It is cut short, damaged or no such archive: copy it again."
BAD_BZ2 = ("Invalid data stream",)

DEAD_LINK = Oddity(
    "Left out, as links of the web server that lead nowhere", "Repair its pages, or the files."
)
CLOSED = Oddity("Left out, as folders that may not be read", "Ask for the right to read them.")
VANISHED = Oddity(
    "Left out, as gone while they were listed", "Run again when nobody changes the data set."
)
UNSIZED = Oddity(
    "Read in full to learn their size, as the web server does not tell it",
    "A server that sends Content-Length is listed faster.",
)


class FsspecPrefix:
    """Files below a URL, by names relative to it; safe to use from threads.

    Args:
        url: As fsspec understands it, chains such as `zip::https://host/images.zip` included.
        suffixes: Ends of the names, in lower case, of the files to list.
        bare: Whether to list files without an ending as well; not of a web server, whose pages
            link to much else.

    Attributes:
        oddities: What the last listing left out or had to read.

    Raises:
        DataError: The protocol is unknown or its package not installed, or the archive is damaged
            or of a kind that cannot be read in place.
        OSError: It cannot be reached.
    """

    def __init__(self, url: str, suffixes: tuple[str, ...], *, bare: bool = False) -> None:
        self.url, self.suffixes = url, suffixes
        self.oddities = Oddities()
        outer, _, inner = url.partition("::")
        protocol = outer.partition(":")[0]
        self._is_web, self._is_archive = protocol in WEB, protocol in ARCHIVES
        self.bare = bare and not self._is_web
        if protocol in CACHES:
            raise DataError(
                f"{url} would be read from copies that are never compared with {inner}, "
                f"which may change. Set data.root to {inner}: decoded images are kept in scratch."
            )
        if protocol == "tar" and is_compressed_tar(url):
            raise DataError(
                f"{url} is compressed as a whole: no image in it can be read by itself. {UNPACK}"
            )
        # fsspec would reuse the archive as it was when this process first opened it.
        options = {"skip_instance_cache": True} if self._is_archive else {}
        try:
            self._fs, self._path = fsspec.core.url_to_fs(url, **options)
            if self._is_archive:
                self._fs.ls("")  # fills fsspec's table of members, which threads must not do
        except (ImportError, ValueError, *DAMAGED) as error:
            is_damaged = isinstance(error, DAMAGED)
            hint = NO_ARCHIVE if is_damaged else extra_hint(error, url) or archive_hint(url)
            raise DataError(f"Cannot open {url}: {error}{hint}") from error
        absolute = self._absolute_member() if self._is_archive else ""
        if absolute:
            raise DataError(
                f"{url} names its members by absolute paths, as {absolute}, by which they cannot "
                f"be read in place. {UNPACK}"
            )
        self._turn: AbstractContextManager[Any] = (
            nullcontext() if protocol in CONCURRENT else threading.Lock()
        )

    def __reduce__(self) -> tuple[partial[FsspecPrefix], tuple[str, tuple[str, ...]]]:
        """Open anew in another process."""
        return partial(FsspecPrefix, bare=self.bare), (self.url, self.suffixes)

    def _is_listed(self, name: str) -> bool:
        return is_listed(name, self.suffixes, self.bare)

    def _absolute_member(self) -> str:
        """Return the name of a file in an archive that begins with `/`; empty where none does."""
        archive = self._fs
        members = (
            archive.zip.namelist() if hasattr(archive, "zip") else getattr(archive, "index", ())
        )
        found = (str(name) for name in members if self._is_listed(name))
        return next((name for name in found if name.startswith("/")), "")

    def objects(self) -> Iterator[tuple[str, int, str]]:
        """Yield name, size in bytes and version of each file to list.

        Raises:
            DataError: It is a web server that does not list its folders.
            FileNotFoundError: There is no such place.
            OSError: It cannot be reached.
        """
        self.oddities = Oddities()
        listed = {
            path: info
            for path, info in self._found().items()
            if info.get("type") == "file" and self._is_listed(path)
        }
        if self._is_web:
            if not listed:
                raise DataError(
                    f"{self.url} lists no images and no tables: as data.root, a web server has to "
                    f"show each folder as a page of links.{archive_hint(self.url)}"
                )
            listed = self._described([html.unescape(path) for path in listed])
        for path, info in listed.items():
            yield self._name(path), int(info["size"]), _version(info)

    def _found(self) -> dict[str, dict[str, Any]]:
        """Return the details of each file, by path."""
        is_walked = getattr(self._fs.find, "__func__", None) is fsspec.AbstractFileSystem.find
        self._fs.invalidate_cache()  # fsspec keeps listings as long as the process lives
        with web_errors(), self._turn:
            found: dict[str, dict[str, Any]] = (
                self._walked()
                if is_walked or self._is_web
                else self._fs.find(self._path, detail=True)
            )
        self._fs.invalidate_cache()
        return found

    def _walked(self) -> dict[str, dict[str, Any]]:
        """List folder by folder: fsspec's own walk silently omits what it cannot list."""
        found = {}
        folders, known = [self._path], {self._path.rstrip("/")}
        while folders:
            folder = folders.pop()
            try:
                with web_errors():
                    entries = self._fs.ls(folder, detail=True)
            except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
                if folder == self._path:
                    raise
                is_closed = isinstance(error, PermissionError)
                kind = CLOSED if is_closed else DEAD_LINK if self._is_web else VANISHED
                self.oddities.add(kind, folder)
                continue
            for info in entries:
                path = info["name"].rstrip("/")
                if info["type"] != "directory":
                    found[info["name"]] = info
                elif path not in known:
                    known.add(path)
                    folders.append(info["name"])
        return found

    def read(self, name: str, limit: int | None = None, *, version: str = "") -> bytes:
        """Return a file's bytes, or the first `limit` of them; the version is not compared.

        Raises:
            FileNotFoundError: It is gone.
            PermissionError: Access is denied.
            ChecksumError: The archive that holds it is damaged there.
            UnreadableFileError: The archive holds it in a way that cannot be unpacked here.
            OSError: It cannot be reached.
        """
        # A range costs one request; without one, some file systems first ask for the size.
        options: dict[str, Any] = {} if limit is None else {"start": 0, "end": limit}
        if self._is_web:
            name = quote(name)
            options["headers"] = {"Accept-Encoding": "identity"}  # a range is of the file's bytes
        try:
            with web_errors(), self._turn:
                path = f"{self._path.rstrip('/')}/{name}"
                data = bytes(self._fs.cat_file(path, **options)[:limit])
                if self._is_web and limit is not None and len(data) < limit - 1:
                    # Some servers compress whatever was asked for, and count ranges after that.
                    data = max(data, bytes(self._fs.cat_file(path)[:limit]), key=len)
                return data
        except DAMAGED as error:
            raise ChecksumError(f"{name} of {self.url} is damaged: {error}") from error
        except (*NOT_UNPACKED, OSError) as error:
            # bz2 alone calls damage an OSError, without a number.
            if not self._is_archive or (isinstance(error, OSError) and error.args != BAD_BZ2):
                raise
            raise UnreadableFileError(f"{error}. {UNPACK} ({name} of {self.url})") from error

    def exists(self) -> bool:
        """Tell whether the root is still there."""
        self._fs.invalidate_cache()
        with self._turn:
            return bool(self._fs.exists(self._path))

    def _name(self, path: str) -> str:
        name = path.removeprefix(f"{self._path.rstrip('/')}/")
        return unquote(name) if self._is_web else name

    def _described(self, paths: list[str]) -> dict[str, dict[str, Any]]:
        """Ask for sizes and versions, which a page of links does not tell."""
        with ThreadPoolExecutor(NUM_CONNECTIONS, "describe") as pool:
            described = zip(paths, pool.map(self._info, paths), strict=True)
            return {path: info for path, info in described if info}

    def _info(self, path: str) -> dict[str, Any]:
        """Return what the web server says of a file, or nothing where the link is dead."""
        with web_errors():
            try:
                info: dict[str, Any] = self._fs.info(path)
            except FileNotFoundError as error:  # so fsspec calls whatever goes wrong
                cause = error.__cause__
                if isinstance(cause, aiohttp.ClientResponseError) and cause.status in NOT_THERE:
                    self.oddities.add(DEAD_LINK, path)
                    return {}
                raise (cause or error) from None
            if info["size"] is None:  # sent in chunks, or compressed on the way
                self.oddities.add(UNSIZED, path)
                content = self._fs.cat_file(path)
                info = {"CRC": zlib.crc32(content), **info, "size": len(content)}
            return info


def is_compressed_tar(url: str) -> bool:
    """Tell by the name whether an archive can only be unpacked as a whole."""
    return any(link.casefold().endswith(COMPRESSED_TAR) for link in url.split("::"))


def archive_hint(root: str) -> str:
    """Return what to do about an archive that is given as a root, after a space; else nothing.

    Args:
        root: Path or URL, as configured.
    """
    name = root.casefold().rstrip("/")
    outer, is_chain, _ = name.partition("::")
    if is_chain:
        protocol = next((IN_PLACE[end] for end in IN_PLACE if outer.endswith(end)), "")
        hint = f" It is an archive within an archive: set data.root to {protocol}::{root}"
        return hint if protocol else ""
    if name.startswith(tuple(f"{protocol}://" for protocol in ARCHIVES)):
        return f" An archive is named after `::`, as in {name.partition(':')[0]}::/data/FILE."
    for suffix, protocol in IN_PLACE.items():
        if name.endswith(suffix):
            return f" It is an archive: set data.root to {protocol}::{root.rstrip('/')}"
    return f" It is an archive. {UNPACK}" if name.endswith(OTHER) else ""


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
    """Return which extra of this project to install, if one is missing."""
    if not isinstance(error, ImportError):
        return ""
    protocols = (link.partition("://")[0] for link in url.split("::"))
    names = (EXTRAS[protocol] for protocol in protocols if protocol in EXTRAS)
    return "".join(f". Install the extra: pip install 'cxrmodel[{name}]'." for name in names)


def _version(info: dict[str, Any]) -> str:
    known = (info.get(key) for key in VERSION_KEYS)
    return str(next((value for value in known if value is not None), "")).strip('"')
