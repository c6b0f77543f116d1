"""A data set's folder on a disk: walked once, with its links, and read."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cxrmodel.data.files.listing import Oddities, Oddity, is_listed
from cxrmodel.errors import FileChangedError

CLOSED = Oddity(
    "Left out, as what may not be read",
    "If it holds images, give the user of this process the right to read it.",
)
DEAD_LINK = Oddity(
    "Left out, as links that lead nowhere or in a circle",
    "Bring back what they lead to (as `dvc pull` or `git annex get` do), or delete them.",
)
LINK_ABOVE = Oddity(
    "Left out, as links to a folder that holds this one", "Delete them, or set data.root to it."
)
LINK_OUT = Oddity(
    "Followed, as links that lead out of the folder",
    "Whoever may write to the folder decides what is read.",
    logging.INFO,
)
NO_FILE = Oddity(
    "Left out, as pipes, sockets or devices with the name of a file", "Delete or rename them."
)
VANISHED = Oddity(
    "Left out, as gone while the folder was listed", "Run again when nobody changes the data set."
)

WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0)
"""Opening a pipe that nobody writes to would wait for ever; it makes no difference for files."""


class LocalFolder:
    """Files below a folder, by paths relative to it.

    Links are followed, also out of the folder: whoever made them decided what belongs to the data
    set. Each folder that links lead to is walked once.

    Args:
        path: The folder.
        suffixes: Ends of the names, in lower case, of the files to list.
        bare: Whether to list files without an ending as well.

    Attributes:
        oddities: What the last listing left out or found outside the folder.
    """

    def __init__(self, path: Path, suffixes: tuple[str, ...], *, bare: bool = False) -> None:
        self.path, self.suffixes, self.bare = path, suffixes, bare
        self.oddities = Oddities()
        self._top = ""
        self._outside: set[str] = set()

    def objects(self) -> Iterator[tuple[str, int, str]]:
        """Yield path, size in bytes and modification time in nanoseconds of each file to list."""
        self.oddities = Oddities()
        self._top, self._outside = os.path.realpath(self.path), set()
        folders = [""]
        while folders:
            prefix = folders.pop()
            for entry in self._entries(prefix):
                name = f"{prefix}{entry.name}"
                try:
                    if self._is_folder(entry, name):
                        folders.append(f"{name}/")
                    elif entry.is_symlink() or self._is_listed(entry.name):
                        yield from self._file(entry, name)
                except PermissionError:
                    self.oddities.add(CLOSED, name)

    def _is_listed(self, name: str) -> bool:
        return is_listed(name, self.suffixes, self.bare)

    def _entries(self, prefix: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(f"{self.path}/{prefix}") as entries:  # Path / prefix takes longer
                return sorted(entries, key=lambda entry: entry.name)  # links are followed in order
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            if not prefix:
                raise
            is_closed = isinstance(error, PermissionError)
            self.oddities.add(CLOSED if is_closed else VANISHED, prefix)
            return []

    def _is_folder(self, entry: os.DirEntry[str], name: str) -> bool:
        """Tell whether an entry is a folder that has to be walked."""
        if not entry.is_symlink():
            return entry.is_dir(follow_symlinks=False)
        target = os.path.realpath(entry.path)
        # A folder that is walked anyway needs no second walk through a link.
        if not os.path.isdir(target) or any(  # noqa: PTH112 - returns False where Path.is_dir raises
            _is_below(target, walked) for walked in (self._top, *self._outside)
        ):
            return False
        if _is_below(self._top, target):
            self.oddities.add(LINK_ABOVE, name)
            return False
        self._outside.add(target)
        self.oddities.add(LINK_OUT, name)
        return True

    def _file(self, entry: os.DirEntry[str], name: str) -> Iterator[tuple[str, int, str]]:
        is_link = entry.is_symlink()
        try:
            status = entry.stat()
        except PermissionError:
            raise
        except OSError:  # ELOOP for a circle, ENAMETOOLONG for the target of a link
            if not is_link and Path(entry.path).exists():
                raise  # trouble with the disk, worth another try
            self.oddities.add(DEAD_LINK if is_link else VANISHED, name)
            return
        if stat.S_ISDIR(status.st_mode) or (is_link and not self._is_listed(entry.name)):
            return
        if not stat.S_ISREG(status.st_mode):
            self.oddities.add(NO_FILE, name)
            return
        if is_link and not _is_below(os.path.realpath(entry.path), self._top):
            self.oddities.add(LINK_OUT, name)
        yield name, status.st_size, str(status.st_mtime_ns)

    def read(self, name: str, limit: int | None = None, *, version: str = "") -> bytes:
        """Return a file's bytes, or the first `limit` of them.

        Raises:
            FileNotFoundError: It is gone.
            FileChangedError: It has another version than the given one, or is no file any more.
            OSError: It cannot be read.
        """
        path = self.path / name
        with suppress(IsADirectoryError), open(path, "rb", opener=_open) as stream:
            is_file = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
            if is_file and _is_version(stream.fileno(), version):
                data = stream.read() if limit is None else stream.read(limit)
                if _is_version(stream.fileno(), version):  # or it was written to meanwhile
                    return data
        raise FileChangedError(
            f"{path} was replaced after it was listed. Run again to index the data set as it is."
        )

    def exists(self) -> bool:
        """Tell whether the folder is still there."""
        return self.path.exists()


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | WITHOUT_WAITING)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip(os.sep)}{os.sep}")


def _is_version(descriptor: int, version: str) -> bool:
    return not version or str(os.fstat(descriptor).st_mtime_ns) == version
