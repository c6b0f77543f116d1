"""Local disks: their free space, and errors that say which is full or cannot be written."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cxrmodel.errors import DiskFullError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
GIB = 1 << 30


@contextmanager
def explain_full_disk(**folders: Path) -> Iterator[None]:
    """Turn the error of a full disk into one that names each folder and its free space.

    Args:
        folders: Local folders that are written to, by the setting that names them.

    Raises:
        DiskFullError: The disk of one of them is full, or its quota used up.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        rooms = "; ".join(
            f"{name}: {path} has {free_bytes(path):,} bytes free" for name, path in folders.items()
        )
        raise DiskFullError(
            f"A disk is full: {error}. Free some room, or choose another folder ({rooms}), and run "
            "again: what is finished stays, and nothing half-written is taken for a result."
        ) from error


def check_writable(**folders: Path) -> None:
    """Create each folder if needed, and try to write in it.

    Args:
        folders: Local folders, by the setting that names them.

    Raises:
        DiskFullError: The disk of one of them is full.
        ValueError: One of them cannot be written to: a file has its name, its disk is read-only,
            or it belongs to somebody else.
    """
    for setting, folder in folders.items():
        try:
            with explain_full_disk(**{setting: folder}):
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass
        except OSError as error:
            raise ValueError(
                f"{setting}: cannot write in {folder}: {error.strerror}. Choose another folder."
            ) from error


def free_bytes(folder: Path) -> int:
    """Return the free space on the disk of a folder, which need not exist yet."""
    path = folder.absolute()
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    return shutil.disk_usage(existing).free


def bytes_on_disk(folder: Path) -> int:
    """Return what the files of a folder take up on disk; holes of sparse files count nothing."""
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())  # the unit POSIX sets
