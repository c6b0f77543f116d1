"""A snapshot of what a data set's root holds: its tables and its listing, without any image."""

from __future__ import annotations

import hashlib
import logging
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import fsspec
import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.entries import REQUIRED, SPELLINGS, has_required_columns
from cxrmodel.data.root import ListedFile, Root, explained
from cxrmodel.data.tables import ENTRIES_FILE, LISTING_FILE, TEST_LIST, TRAIN_VAL_LIST
from cxrmodel.errors import DataError

ENTRIES_PATTERN = "data_entry*.csv"
KEY_CHARS = 16
HEAD_BYTES = 1 << 16
MAX_CSV_CANDIDATES = 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A local snapshot of what a root holds, without any image byte.

    Attributes:
        root: As configured.
        fingerprint: sha256 over the CSV, the official lists and the listing of the images.
        directory: Folder with `entries.csv`, `listing.parquet` (uri, bytes, version) and, where
            the root has them, the two official lists.
    """

    root: str
    fingerprint: str
    directory: Path


def scan_source(config: DataConfig, scratch: Path) -> Source:
    """Snapshot the CSV, NIH's official lists and the listing of a data set.

    One recursive listing and one read of each table; no image is opened.

    Args:
        config: The root, and the CSV where it lies elsewhere.
        scratch: Node-local folder that keeps snapshots.

    Raises:
        DataError: The root, its images or its CSV are missing or ambiguous, or access is denied.
        OSError: The store cannot be reached; worth another try.
    """
    root = Root(config.root)
    files = root.files()
    images = [file for file in files if file.uri.casefold().endswith(".png")]
    if not images:
        raise DataError(_no_images(root))
    tables = {ENTRIES_FILE: _read_csv(config, root, files)}
    for name in (TRAIN_VAL_LIST, TEST_LIST):
        uri = _official_list(files, name)
        if uri is not None:
            tables[name] = _read(root, uri)
    fingerprint = _fingerprint(tables, images)
    directory = scratch / "sources" / fingerprint[:KEY_CHARS]
    _keep_snapshot(directory, tables, images)
    return Source(config.root, fingerprint, directory)


def _no_images(root: Root) -> str:
    links = root.skipped_links and (
        f" {root.skipped_links:,} symbolic links there lead out of it and were not followed."
    )
    return (
        f"There are no images in {root.root}: no file below it, at any depth, ends in .png."
        f"{links or ''} Set data.root to the folder or URL that holds the images, "
        "or to `phantom` for synthetic ones."
    )


def _read(root: Root, uri: str, limit: int | None = None) -> bytes:
    with explained(f"{root.root.rstrip('/')}/{uri}", "read"):
        return root.read(uri, limit)


def _read_csv(config: DataConfig, root: Root, files: list[ListedFile]) -> bytes:
    if config.csv is None:
        csvs = [file.uri for file in files if file.uri.casefold().endswith(".csv") and file.bytes]
        return _read(root, _find_csv(root, csvs))
    with explained(config.csv, "read"), fsspec.open(config.csv, "rb") as stream:
        return bytes(stream.read())


def _find_csv(root: Root, uris: list[str]) -> str:
    named = [uri for uri in uris if fnmatch(_name(uri).casefold(), ENTRIES_PATTERN)]
    candidates = named or _with_columns(root, uris)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise DataError(
            f"{root.root} holds {len(candidates)} CSVs that may describe the images: "
            f"{', '.join(candidates[:MAX_CSV_CANDIDATES])}. Set data.csv to the right one."
        )
    columns = ", ".join(repr(SPELLINGS[field][0]) for field in REQUIRED)
    raise DataError(
        f"There is no metadata CSV in {root.root}: neither one named Data_Entry*.csv, at any "
        f"depth, nor another with the columns {columns} ({len(uris)} CSVs found). Set data.csv "
        "to its path or URL."
    )


def _with_columns(root: Root, uris: list[str]) -> list[str]:
    if len(uris) > MAX_CSV_CANDIDATES:
        return uris  # too many to open each: the user has to say
    return [uri for uri in uris if has_required_columns(_read(root, uri, HEAD_BYTES))]


def _name(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]


def _official_list(files: list[ListedFile], name: str) -> str | None:
    uris = sorted((f.uri for f in files if _name(f.uri) == name), key=lambda uri: uri.count("/"))
    if len(uris) > 1:
        logger.warning("%d files are named %s; the one used is %s", len(uris), name, uris[0])
    return uris[0] if uris else None


def _fingerprint(tables: Mapping[str, bytes], images: list[ListedFile]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(tables.items()):
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    for image in images:
        digest.update(f"{image.uri}\0{image.bytes}\0{image.version}\n".encode())
    return digest.hexdigest()


def _keep_snapshot(directory: Path, tables: Mapping[str, bytes], images: list[ListedFile]) -> None:
    if all((directory / name).is_file() for name in (*tables, LISTING_FILE)):
        return
    partial = directory.with_name(f"{directory.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        for name, content in tables.items():
            (partial / name).write_bytes(content)
        columns = ("uri", "bytes", "version")
        listing = pd.DataFrame({name: [getattr(i, name) for i in images] for name in columns})
        listing.to_parquet(partial / LISTING_FILE, index=False, compression="zstd")
        _move_into_place(partial, directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move_into_place(partial: Path, directory: Path) -> None:
    try:
        partial.rename(directory)
    except OSError:
        # Another process has won, with the same content, or a cleaner has left half a snapshot.
        for path in partial.iterdir():
            path.replace(directory / path.name)
