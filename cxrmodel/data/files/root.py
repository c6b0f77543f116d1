"""The folder or bucket that holds a data set: one listing, and single reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    HTTPClientError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from fsspec.implementations.local import LocalFileSystem

from cxrmodel.data.files.fsspec_files import FsspecPrefix, archive_hint, extra_hint, web_errors
from cxrmodel.data.files.listing import IMAGE_SUFFIXES, ListedFile, Oddities
from cxrmodel.data.files.local_files import LocalFolder
from cxrmodel.data.files.s3 import PROTOCOLS as S3_PROTOCOLS
from cxrmodel.data.files.s3 import S3Prefix
from cxrmodel.data.files.unforeseen import unforeseen
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import DataError, FileChangedError, ImageError, UnreadableFileError

LOCAL_PROTOCOLS = ("file:", "local:")
LISTED_SUFFIXES = (*IMAGE_SUFFIXES, ".csv", ".csv.gz", ".txt")

UNREACHABLE = (HTTPClientError, BotoConnectionError)  # neither is an OSError

ONLY_A_FOLDER = " For a folder give the path alone, without what precedes `::`."
CREDENTIALS = (
    "Credentials come from the cloud's own chain (for S3: environment, profile or role; "
    "AWS_ENDPOINT_URL for another endpoint)."
)


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
    except FileNotFoundError as error:
        raise DataError(f"Cannot {action} {location}: it does not exist ({error}).") from error
    except (NotADirectoryError, IsADirectoryError) as error:
        hint = archive_hint(location) or (ONLY_A_FOLDER if "::" in location else "")
        raise DataError(f"Cannot {action} {location}: {error}.{hint}") from error
    except PermissionError as error:
        hint = f" {CREDENTIALS}" if "://" in location else ""
        raise DataError(f"Cannot {action} {location}: access is denied ({error}).{hint}") from error
    except UNREACHABLE as error:
        raise ConnectionError(f"Cannot {action} {location}: {error}") from error
    except unforeseen() as error:
        raise DataError(_unforeseen(error, location, action)) from error


def _unforeseen(error: Exception, location: str, action: str) -> str:
    hint = extra_hint(error, location)
    if hint or isinstance(error, ImportError):  # a protocol whose package is not installed
        return f"Cannot {action} {location}: {error}{hint}"
    advice = (
        CREDENTIALS
        if isinstance(error, BotoCoreError)
        else "If the address is right, copy the data set to a folder and set data.root to that."
    )
    return f"Cannot {action} {location}: {type(error).__name__}: {error}. {advice}"


def read_location(location: str) -> bytes:
    """Return the bytes of a file anywhere.

    Args:
        location: Path or fsspec URL.

    Raises:
        DataError: It is not there, or access is denied.
        OSError: It cannot be reached.
    """
    with explained(location, "read"):
        if location.startswith(S3_PROTOCOLS):
            folder, _, name = location.rpartition("/")
            return S3Prefix(folder).read(name)
        with fsspec.open(location, "rb") as stream:
            return bytes(stream.read())


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
    def oddities(self) -> Oddities:
        """What the last listing left out or found elsewhere."""
        return self._files.oddities

    def files(self) -> list[ListedFile]:
        """List the images, tables and lists below the root, sorted, in one sweep."""
        with explained(self.root, "list"):
            files = sorted(
                ListedFile(_printable(uri), size, version)
                for uri, size, version in self._files.objects()
                if uri.casefold().endswith(LISTED_SUFFIXES)
            )
        self.oddities.log(self.root)
        return files

    def read(self, uri: str, limit: int | None = None, *, version: str = "") -> bytes:
        """Return a file's bytes, or the first `limit` of them, in one request.

        Args:
            uri: As listed.
            limit: The most bytes to return.
            version: As listed: on a disk or S3, a file that was replaced since is refused.

        Raises:
            FileNotFoundError: It is gone.
            FileChangedError: It has another version than the given one.
            UnreadableFileError: It keeps coming damaged, or cannot be unpacked.
            DataError: The file system failed in an unexpected way.
            PermissionError: Access is refused.
            OSError: It cannot be reached.
        """
        try:
            return self._files.read(uri, limit, version=version)
        except unforeseen() as error:
            location = f"{self.root.rstrip('/')}/{uri}"
            raise DataError(_unforeseen(error, location, "read")) from error

    def read_required(self, uri: str, limit: int | None = None) -> bytes:
        """Read like `read` what the run cannot do without, such as a table.

        Raises:
            DataError: It is not there, or access is denied.
            OSError: It cannot be reached.
        """
        with explained(f"{self.root.rstrip('/')}/{uri}", "read"):
            return self.read(uri, limit)

    def read_image(self, uri: str, limit: int, *, version: str = "") -> bytes:
        """Read like `read`, but raise an ImageError for whatever costs this image alone.

        Raises:
            ImageError: The file is gone, replaced or unreadable.
            OSError: The root as a whole cannot be reached; worth another try.
        """
        try:
            return self.read(uri, limit, version=version)
        except FileNotFoundError as error:
            if not self.exists():
                raise OSError(f"{self.root} is gone or out of reach: {error}") from error
            raise ImageError(Reason.UNREADABLE, "it was listed, and is no longer there") from error
        except FileChangedError as error:
            was = f"it was version {version} when it was listed" if version else str(error)
            raise ImageError(Reason.REPLACED, was) from error
        except UnreadableFileError as error:
            raise ImageError(Reason.UNREADABLE, str(error)) from error
        except OSError as error:
            error.add_note(f"while reading {uri} of {self.root}")
            raise

    def exists(self) -> bool:
        """Tell whether the root is still there."""
        return self._files.exists()


def _files_below(root: str) -> LocalFolder | S3Prefix | FsspecPrefix:
    if root.startswith(S3_PROTOCOLS):
        return S3Prefix(root)
    if root.startswith(LOCAL_PROTOCOLS) or not ("://" in root or "::" in root):
        path = Path(LocalFileSystem._strip_protocol(root))
        if path.is_file():
            hint = archive_hint(root) or " Set data.root to the folder that holds the images."
            raise DataError(f"{root} is a file, and data.root a folder or URL.{hint}")
        return LocalFolder(path, LISTED_SUFFIXES)
    return FsspecPrefix(root, LISTED_SUFFIXES)


def _printable(uri: str) -> str:
    # Names that are not UTF-8 cannot be stored in Parquet, nor can a CSV in UTF-8 name them.
    return uri.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
