"""A folder of results that appears whole or not at all, on a disk or in a bucket."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cxrmodel.storage.small_files import LocalSmallFiles, open_small_files

NUM_SHOWN = 3


def publish_folder(folder: Path, place: str, last: str) -> None:
    """Copy a folder's files to a place, instead of an earlier result that is there.

    On a disk the folder is exchanged as a whole. In a bucket each file appears whole, and the one
    that tells of the others is removed first and comes last: where it is, all are.

    Args:
        folder: The files; folders in it are one result's own, whatever files they hold.
        place: Folder or URL.
        last: Name of the file that comes last.

    Raises:
        FileExistsError: Something else is at the place, which would be lost.
        StoreError: The place cannot be opened.
    """
    target = open_small_files(place)
    names = LocalSmallFiles(folder).find()
    there = target.find()
    _refuse_others(names, there, place)
    files, path = fsspec.core.url_to_fs(place)
    if isinstance(files, LocalFileSystem):
        if there and last not in there:  # on a disk a result is always whole
            raise _not_ours(place, there)
        _exchange(folder, names, Path(path).resolve())  # what a link leads to, not the link
        return
    target.remove(last)
    for name in sorted(names, key=lambda name: (name == last, name)):
        target.write(name, (folder / name).read_bytes())
    for name in set(there) - set(names):
        target.remove(name)


def _refuse_others(names: Iterable[str], there: Iterable[str], place: str) -> None:
    own = {name.partition("/")[0] for name in names}
    others = [name for name in there if name.partition("/")[0] not in own]
    if others:
        raise _not_ours(place, others)


def _not_ours(place: str, others: Iterable[str]) -> FileExistsError:
    shown = ", ".join(list(others)[:NUM_SHOWN])
    return FileExistsError(
        f"{place} holds files that are no part of an earlier result, such as {shown}, and they "
        "would be lost. Give another folder."
    )


def _exchange(folder: Path, names: Iterable[str], target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{target} is a file. Give the name of a folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = f".{target.name[:100]}.{uuid.uuid4().hex}"
    new, old = target.with_name(f"{mark}.partial"), target.with_name(f"{mark}.old")
    try:
        for name in names:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, new / name)  # for whoever may read the other files
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:  # another run was faster, or the disk failed
            if old.exists() and not target.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
