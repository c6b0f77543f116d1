"""A snapshot of a data set's root: its tables and its listing, without any image."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count, takewhile
from pathlib import Path

import pandas as pd
from fsspec.utils import glob_translate

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.boxes import BOX_LISTS
from cxrmodel.data.datasets.delimited import HEAD_BYTES
from cxrmodel.data.datasets.discovery import find_tables
from cxrmodel.data.datasets.joins import is_dicom_name
from cxrmodel.data.datasets.nih import TEST_LISTS, TRAIN_VAL_LISTS
from cxrmodel.data.datasets.pseudonyms import patient_salt
from cxrmodel.data.datasets.registry import AUTO, data_set_of
from cxrmodel.data.datasets.table_forms import as_csv
from cxrmodel.data.files.fsspec_files import archive_hint
from cxrmodel.data.files.listing import IMAGE_SUFFIXES, ListedFile, is_archive, is_image
from cxrmodel.data.files.root import Root, is_folder_of_files, joint_root, read_location
from cxrmodel.errors import DataError
from cxrmodel.storage.disk import explain_full_disk
from cxrmodel.storage.layout import LISTING_FILE

ENTRIES_FILE = "entries.csv"
KEY_CHARS = 16
SHOWN_FOLDERS = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A local snapshot of a root, without any image byte.

    Attributes:
        root: As configured; with several data sets, or an unread folder of archives, a joint root.
        fingerprint: sha256 over the tables, NIH's other lists and the listing of the images, and
            over the salt of pseudonyms where patients get them.
        directory: Folder with `entries.csv` (and `entries.1.csv` of a second table, and so on),
            `listing.parquet` (uri, bytes, version) and, where the root has them, the two official
            lists and the list of boxes.
        table_names: Where the tables lie, for messages.
        name: Of the data set among several, by which its files are told apart.
        parts: The snapshots of several data sets, of which the joint one holds nothing itself.
    """

    root: str
    fingerprint: str
    directory: Path
    table_names: tuple[str, ...] = ()
    name: str = ""
    parts: tuple[Source, ...] = ()

    def tables(self) -> list[bytes]:
        """Return the content of the data set's tables."""
        paths = (self.directory / _entries_file(number) for number in count())
        return [path.read_bytes() for path in takewhile(Path.is_file, paths)]


def _entries_file(number: int) -> str:
    name, dot, suffix = ENTRIES_FILE.partition(".")
    return f"{name}.{number}{dot}{suffix}" if number else ENTRIES_FILE


def scan_source(config: DataConfig, scratch: Path) -> Source:
    """Snapshot a data set's tables, NIH's lists of parts and boxes, and the listing.

    One recursive listing and one read of each table; no image is opened.

    Args:
        config: The root, the folder of its images, and the CSV where it lies elsewhere.
        scratch: Node-local folder that keeps snapshots.

    Raises:
        DataError: The root, its images or its CSV are missing or ambiguous, or access is denied.
        OSError: The store cannot be reached; worth another try.
    """
    if config.sources:
        return _scan_several(config, scratch)
    salt = patient_salt(config)
    place = config.root
    root = Root(place)
    files = root.files()
    if not any(is_image(file.uri) for file in files):
        place = _with_archives(place, files)
        root = Root(place)
        files = root.files()
    images: list[ListedFile] = []
    others: list[ListedFile] = []
    for file in files:
        (images if is_image(file.uri) else others).append(file)
    if not images:
        raise DataError(_no_images(root))
    images = _chosen(images, config.images, root)
    entries = _read_entries(config, root, files, images)
    tables = {_entries_file(number): each for number, each in enumerate(entries.values())}
    for names in (TRAIN_VAL_LISTS, TEST_LISTS, BOX_LISTS):
        uri = _official_file(others, names)
        if uri is not None:
            tables[names[0]] = root.read_required(uri)
    fingerprint = _fingerprint(tables, images, salt)
    directory = scratch / "sources" / fingerprint[:KEY_CHARS]
    _keep_snapshot(directory, tables, images)
    return Source(place, fingerprint, directory, tuple(entries), _name_of(config, entries))


def _scan_several(config: DataConfig, scratch: Path) -> Source:
    """Return a joint snapshot of several data sets, each with a name of its own."""
    parts: list[Source] = []
    taken = {source.name for source in config.sources}
    for named, one in zip(config.sources, config.of_sources(), strict=True):
        part = scan_source(one, scratch)
        numbered = (f"{part.name} {number}" if number > 1 else part.name for number in count(1))
        name = named.name or next(each for each in numbered if each not in taken)
        taken.add(name)
        parts.append(replace(part, name=name))
    digest = hashlib.sha256("".join(f"{x.name} {x.fingerprint}\n" for x in parts).encode())
    root = joint_root({part.name: part.root for part in parts})
    return Source(root, digest.hexdigest(), scratch / "sources", parts=tuple(parts))


def _name_of(config: DataConfig, entries: Mapping[str, bytes]) -> str:
    if config.dataset != AUTO:
        return config.dataset
    place, content = next(iter(entries.items()))
    return data_set_of(AUTO, as_csv(content, place)[:HEAD_BYTES], only_dicom=True).name


def _with_archives(place: str, files: list[ListedFile]) -> str:
    """Return the root of what lies in zip archives below a root without images, and beside them."""
    archives = [f.uri for f in files if is_archive(f.uri)]
    if not archives or "::" in place:
        return place
    logger.info("%d zip archives in %s are read in place", len(archives), place)
    return joint_root({"": place, **{uri: f"zip::{place.rstrip('/')}/{uri}" for uri in archives}})


def _chosen(images: list[ListedFile], pattern: str, root: Root) -> list[ListedFile]:
    """Return the images below the folders, or of the names, that `data.images` says."""
    pattern = pattern.removeprefix("./").strip("/")
    if not pattern:
        return images
    try:
        is_chosen = re.compile(rf"{glob_translate(pattern)[:-2]}(?:/.*)?", re.DOTALL).fullmatch
    except (ValueError, re.error) as error:
        raise DataError(f"data.images = {pattern} is not a folder or a glob: {error}.") from error
    chosen = [image for image in images if is_chosen(image.uri)]
    if not chosen:
        counts = Counter(image.uri.rpartition("/")[0] or "the root itself" for image in images)
        folders = ", ".join(f"{name} ({num:,})" for name, num in counts.most_common(SHOWN_FOLDERS))
        raise DataError(
            f"data.images = {pattern} names none of the {len(images):,} images of {root.root}. It "
            f"is a folder relative to the root, or a glob. Folders with images: {folders}."
        )
    return chosen


def _no_images(root: Root) -> str:
    oddities = "".join(f" {sentence}" for sentence in root.oddities.sentences(root.root))
    advice = archive_hint(root.root) or (
        " Set data.root to the folder or URL that holds the images, or to `phantom` for synthetic "
        "ones."
    )
    return (
        f"There are no images in {root.root}: no file below it, at any depth, ends in "
        f"{', '.join(IMAGE_SUFFIXES)}, or has no ending and is DICOM.{oddities}{advice}"
    )


def _read_entries(
    config: DataConfig, root: Root, files: list[ListedFile], images: list[ListedFile]
) -> dict[str, bytes]:
    """Return the content of each table, by where it lies."""
    only_dicom = all(is_dicom_name(file.uri) for file in images)
    if config.csv is not None:
        if not is_folder_of_files(config.csv):
            return {config.csv: read_location(config.csv)}
        root = Root(config.csv)
        files = root.files()
    uris = find_tables(config, root, files, only_dicom)
    return {f"{root.root.rstrip('/')}/{uri}": root.read_required(uri) for uri in uris}


def _official_file(files: list[ListedFile], names: tuple[str, ...]) -> str | None:
    known = [name.casefold() for name in names]
    same = (f.uri for f in files if f.uri.rsplit("/", 1)[-1].casefold() in known)
    uris = sorted(same, key=lambda uri: uri.count("/"))
    if len(uris) > 1:
        logger.warning("%d files are named %s; the one used is %s", len(uris), names[0], uris[0])
    return uris[0] if uris else None


def _fingerprint(tables: Mapping[str, bytes], images: list[ListedFile], salt: bytes | None) -> str:
    digest = hashlib.sha256()
    if salt is not None:  # other pseudonyms make another index
        digest.update(f"salt {hashlib.sha256(salt).hexdigest()}\n".encode())
    for name, content in sorted(tables.items()):
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    lines = [f"{image.uri}\0{image.bytes}\0{image.version}\n" for image in images]
    digest.update("".join(lines).encode())
    return digest.hexdigest()


def _keep_snapshot(directory: Path, tables: Mapping[str, bytes], images: list[ListedFile]) -> None:
    if all((directory / name).is_file() for name in (*tables, LISTING_FILE)):
        os.utime(directory)  # marks it as in use, for whatever cleans scratch
        return
    partial = directory.with_name(f"{directory.name}.{uuid.uuid4().hex}.partial")
    with explain_full_disk(**{"store.scratch": directory}):
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
