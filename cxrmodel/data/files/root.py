"""The folder or bucket that holds a data set: one listing, and single reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
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
from cxrmodel.data.files.listing import (
    DICOM_PREFIX,
    DICOM_PREFIX_AT,
    LISTED_SUFFIXES,
    ListedFile,
    Oddities,
    is_listed,
)
from cxrmodel.data.files.local_files import CLOSED, LocalFolder
from cxrmodel.data.files.s3 import PROTOCOLS as S3_PROTOCOLS
from cxrmodel.data.files.s3 import S3Prefix
from cxrmodel.data.files.unforeseen import unforeseen
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import DataError, FileChangedError, ImageError, UnreadableFileError

LOCAL_PROTOCOLS = ("file:", "local:")
BUCKETS = (*S3_PROTOCOLS, "gs://", "gcs://", "az://", "abfs://")
PEEK_WORKERS = 16

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


def is_folder_of_files(location: str) -> bool:
    """Tell whether a place is a folder on a disk, or by its name a prefix in a bucket."""
    name = location.rpartition("/")[2]
    return Path(location).is_dir() or (location.startswith(BUCKETS) and "." not in name)


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


def joint_root(roots: Mapping[str, str]) -> str:
    """Return one root that holds several, each below a folder of the given name.

    The files of a root with an empty name lie at the top.
    """
    return json.dumps(dict(roots))


def is_joint(root: str) -> bool:
    """Say whether a root is one of `joint_root`."""
    return root.startswith("{")


def _roots_in(root: str) -> dict[str, str]:
    """Return the roots that a joint one holds; none of any other."""
    roots: dict[str, str] = json.loads(root) if is_joint(root) else {}
    return roots


def shown_root(root: str) -> str:
    """Return what to call a root in a message."""
    roots = _roots_in(root)
    return roots.get("") or " and ".join(map(shown_root, roots.values())) or root


class Root:
    """A folder or any fsspec URL, or several as of `joint_root`.

    Args:
        root: As configured.

    Attributes:
        root: What to call it in a message.
        is_local: Whether it is a folder on a disk.

    Raises:
        DataError: No file system for such a URL is known or installed.
        OSError: It cannot be reached.
    """

    def __init__(self, root: str) -> None:
        self.root = shown_root(root)
        with explained(self.root, "open"):
            self._files = _files_below(root)
        self.is_local = _is_local(self._files)

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
                if is_listed(uri, LISTED_SUFFIXES, bare=True)
            )
            files = self._without_strangers(files)
        self.oddities.log(self.root)
        return files

    def _without_strangers(self, files: list[ListedFile]) -> list[ListedFile]:
        """Leave out files without an ending in their name whose content is not DICOM."""
        bare = [file.uri for file in files if not is_listed(file.uri, LISTED_SUFFIXES, bare=False)]
        if not bare:
            return files
        with ThreadPoolExecutor(PEEK_WORKERS, "peek") as pool:
            known = dict(zip(bare, pool.map(self._holds_dicom, bare), strict=True))
        return [file for file in files if known.get(file.uri, True)]

    def _holds_dicom(self, uri: str) -> bool:
        try:
            head = self.read_image(uri, DICOM_PREFIX_AT + len(DICOM_PREFIX))
        except PermissionError:
            self.oddities.add(CLOSED, uri)
            return False
        except ImageError:  # a pipe, or gone by now
            return False
        return head.startswith(DICOM_PREFIX, DICOM_PREFIX_AT)

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


class _JointFiles:
    """The files of several roots, each below a folder of its name."""

    def __init__(self, parts: Mapping[str, _Files]) -> None:
        self.parts = parts

    @property
    def oddities(self) -> Oddities:
        """What the last listings left out."""
        return Oddities.joined(part.oddities for part in self.parts.values())

    def objects(self) -> Iterator[tuple[str, int, str]]:
        """Yield name, size in bytes and version of each file."""
        for name, part in self.parts.items():
            for uri, size, version in part.objects():
                yield (f"{name}/{uri}" if name else uri), size, version

    def read(self, name: str, limit: int | None = None, *, version: str = "") -> bytes:
        """Read a file from the root that holds it."""
        parts = (part for part in self.parts if part and name.startswith(f"{part}/"))
        part = max(parts, key=len, default="")
        if part not in self.parts:
            raise FileNotFoundError(f"{name} lies in none of {', '.join(self.parts)}")
        inner = name.removeprefix(f"{part}/") if part else name
        return self.parts[part].read(inner, limit, version=version)

    def exists(self) -> bool:
        """Tell whether all of the roots are still there."""
        return all(part.exists() for part in self.parts.values())


_Files = LocalFolder | S3Prefix | FsspecPrefix | _JointFiles


def _is_local(files: _Files) -> bool:
    if isinstance(files, _JointFiles):
        return all(map(_is_local, files.parts.values()))
    return isinstance(files, LocalFolder)


def _files_below(root: str) -> _Files:
    roots = _roots_in(root)
    if roots:
        return _JointFiles({name: _files_below(inner) for name, inner in roots.items()})
    if root.startswith(S3_PROTOCOLS):
        return S3Prefix(root)
    if root.startswith(LOCAL_PROTOCOLS) or not ("://" in root or "::" in root):
        path = Path(LocalFileSystem._strip_protocol(root))
        if path.is_file():
            hint = archive_hint(root) or " Set data.root to the folder that holds the images."
            raise DataError(f"{root} is a file, and data.root a folder or URL.{hint}")
        return LocalFolder(path, LISTED_SUFFIXES, bare=True)
    return FsspecPrefix(root, LISTED_SUFFIXES, bare=True)


def _printable(uri: str) -> str:
    # Names that are not UTF-8 cannot be stored in Parquet, nor can a CSV in UTF-8 name them.
    return uri if uri.isascii() else uri.encode("utf-8", "surrogateescape").decode(errors="replace")
