"""A data set's folder on a disk: walked without leaving it, and read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cxrmodel.errors import FileChangedError


class LocalFolder:
    """Files below a folder, by paths relative to it.

    Args:
        path: The folder.
        suffixes: Ends of the names, in lower case, of the files to list.

    Attributes:
        skipped_links: Links of the last listing that lead out of the folder, and that are not
            followed.
    """

    def __init__(self, path: Path, suffixes: tuple[str, ...]) -> None:
        self.path, self.suffixes = path, suffixes
        self.skipped_links = 0

    def objects(self) -> Iterator[tuple[str, int, str]]:
        """Yield path, size in bytes and modification time in nanoseconds of each file to list."""
        top = self.path.resolve(strict=True)
        self.skipped_links = 0
        folders = [(str(self.path), "")]
        while folders:
            folder, prefix = folders.pop()
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((entry.path, f"{prefix}{entry.name}/"))
                    elif self._is_listed(entry, top):
                        with suppress(FileNotFoundError):  # gone since the folder was read
                            status = entry.stat()
                            yield prefix + entry.name, status.st_size, str(status.st_mtime_ns)

    def _is_listed(self, entry: os.DirEntry[str], top: Path) -> bool:
        # What a link to a folder below the top holds is met in that folder itself.
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(top):
            self.skipped_links += 1
            return False
        return entry.name.casefold().endswith(self.suffixes) and entry.is_file()

    def read(self, name: str, limit: int | None = None, *, version: str = "") -> bytes:
        """Return a file's bytes, or the first `limit` of them.

        Raises:
            FileNotFoundError: It is gone.
            FileChangedError: It has another version than the given one.
            OSError: It cannot be read.
        """
        path = self.path / name
        with path.open("rb") as stream:
            if version and str(os.fstat(stream.fileno()).st_mtime_ns) != version:
                raise FileChangedError(
                    f"{path} was replaced after it was listed. "
                    "Run again to index the data set as it is."
                )
            return stream.read() if limit is None else stream.read(limit)

    def exists(self) -> bool:
        """Tell whether the folder is still there."""
        return self.path.exists()
