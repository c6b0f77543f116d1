"""A folder for work in progress, for one process at a time; a killed run leaves it to the next."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path


@contextmanager
def own_work_folder(parent: Path, name: str) -> Iterator[Path]:
    """Give a folder to this process alone, that of a killed process where there is one.

    Two runs of the same stage at once would overwrite each other's checkpoints: the second gets a
    folder beside the first's. The lock is on the folder itself and ends with the process.

    Args:
        parent: Node-local folder; made where missing.
        name: Name of the folder, and the start of the name of those beside it.
    """
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    locks = ((parent / beside, _lock(parent / beside)) for beside in names)
    folder, descriptor = next((path, lock) for path, lock in locks if lock is not None)
    try:
        yield folder
    finally:
        if _is_still(descriptor, folder):
            with suppress(OSError):  # it holds something for the next run
                folder.rmdir()
        os.close(descriptor)


def _lock(folder: Path) -> int | None:
    """Lock a folder and return its descriptor; None where another process holds it."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except (FileExistsError, FileNotFoundError):
            if folder.is_file():
                raise
            continue  # its owner has removed it in the meantime
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if _is_still(descriptor, folder):
            return descriptor
        os.close(descriptor)


def _is_still(descriptor: int, folder: Path) -> bool:
    """Tell whether a path still leads to the opened folder, not to a new one or to nothing."""
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False
