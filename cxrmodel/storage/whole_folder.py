"""A folder of results that appears whole or not at all, on a disk or in a bucket."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cxrmodel.storage.small_files import open_small_files


def publish_folder(folder: Path, place: str, last: str) -> None:
    """Copy a folder's files to a place, instead of what is there.

    On a disk the folder is exchanged as a whole. In a bucket each file appears whole, and the one
    that tells of the others comes last, after the old one is gone: where it is, all are.

    Args:
        folder: The files, at any depth.
        place: Folder or URL.
        last: Name of the file that comes last.

    Raises:
        NotADirectoryError: There is a file at the place.
        FileExistsError: A folder is there that holds other files than such results.
    """
    files, path = fsspec.core.url_to_fs(place)
    if isinstance(files, LocalFileSystem):
        _exchange(folder, Path(path), last)
        return
    target = open_small_files(place)
    target.remove(last)
    names = sorted(_names(folder), key=lambda name: (name == last, name))
    for name in names:
        target.write(name, (folder / name).read_bytes())
    for name in set(target.find()) - set(names):
        target.remove(name)


def _exchange(folder: Path, target: Path, last: str) -> None:
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is a file. Give the name of a folder.")
    if target.is_dir() and any(target.iterdir()) and not (target / last).exists():
        raise FileExistsError(
            f"{target} holds files and no {last}, so it is no earlier result. Give another folder."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = f"{target.name[:100]}.{uuid.uuid4().hex}"
    new, old = target.with_name(f".{mark}.partial"), target.with_name(f".{mark}.old")
    try:
        shutil.copytree(folder, new)
        if target.exists():
            target.rename(old)
        new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
