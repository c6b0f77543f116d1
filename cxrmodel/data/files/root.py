"""The folder or bucket that holds a data set: one listing, and single reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    HTTPClientError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from fsspec.implementations.local import LocalFileSystem

from cxrmodel.data.files.fsspec_files import FsspecPrefix, extra_hint, web_errors
from cxrmodel.data.files.local_files import LocalFolder
from cxrmodel.data.files.s3 import S3Prefix
from cxrmodel.data.tables import IMAGE_SUFFIXES
from cxrmodel.errors import DataError

LOCAL_PROTOCOLS = ("file:", "local:")
LISTED_SUFFIXES = (*IMAGE_SUFFIXES, ".csv", ".csv.gz", ".txt")

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
        with web_errors():
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
        hint = extra_hint(error, location)
        raise DataError(f"Cannot {action} {location}: {error}{hint}") from error


class Root:
    """A folder or any fsspec URL.

    Args:
        root: As configured.

    Attributes:
        is_local: Whether it is a folder on a disk.

    Raises:
        DataError: No file system for such a URL is known or installed.
        OSError: It cannot be reached.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        with explained(root, "open"):
            self._files = _files_below(root)
        self.is_local = isinstance(self._files, LocalFolder)

    @property
    def skipped_links(self) -> int:
        """Links of the last listing that lead out of the root, and that are not followed."""
        return self._files.skipped_links if isinstance(self._files, LocalFolder) else 0

    def files(self) -> list[ListedFile]:
        """List the images, tables and lists below the root, sorted, in one sweep."""
        with explained(self.root, "list"):
            return sorted(
                ListedFile(_printable(uri), size, version)
                for uri, size, version in self._files.objects()
                if uri.casefold().endswith(LISTED_SUFFIXES)
            )

    def read(self, uri: str, limit: int | None = None, *, version: str = "") -> bytes:
        """Return a file's bytes, or the first `limit` of them, in one request.

        Args:
            uri: As listed.
            limit: The most bytes to return.
            version: As listed: on a disk or S3, a file that was replaced since is refused.

        Raises:
            FileNotFoundError: It is gone.
            FileChangedError: It has another version than the given one.
            ChecksumError: It keeps coming damaged.
            PermissionError: Access is refused.
            OSError: It cannot be reached.
        """
        return self._files.read(uri, limit, version=version)

    def exists(self) -> bool:
        """Tell whether the root is still there."""
        return self._files.exists()


def _files_below(root: str) -> LocalFolder | S3Prefix | FsspecPrefix:
    if root.startswith("s3://"):
        return S3Prefix(root)
    if root.startswith(LOCAL_PROTOCOLS) or not ("://" in root or "::" in root):
        return LocalFolder(Path(LocalFileSystem._strip_protocol(root)), LISTED_SUFFIXES)
    return FsspecPrefix(root, LISTED_SUFFIXES)


def _printable(uri: str) -> str:
    # Names that are not UTF-8 cannot be stored in Parquet, nor can a CSV in UTF-8 name them.
    return uri.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
