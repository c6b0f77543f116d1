"""The data sets that this project understands: which of them a root holds, and its rows.

To add one, write its module and name it in `DATASETS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.boxes import BOX_LIST
from cxrmodel.data.datasets.chexpert import CHEXPERT
from cxrmodel.data.datasets.data_set import DataSet, Entries
from cxrmodel.data.datasets.delimited import HEAD_BYTES, header_of, match_columns, read_columns
from cxrmodel.data.datasets.nih import NIH
from cxrmodel.data.files.listing import DICOM_SUFFIX, IMAGE_SUFFIXES, ListedFile
from cxrmodel.data.files.root import Root
from cxrmodel.errors import DataError

DATASETS: Mapping[str, DataSet] = {each.name: each for each in (NIH, CHEXPERT)}
"""By their name in `data.dataset`."""

AUTO = "auto"
TABLE_SUFFIXES = (".csv", ".csv.gz")
MAX_CANDIDATES = 20
SHOWN_TABLES = 5


def candidates(choice: str) -> Sequence[DataSet]:
    """Return the data sets that a choice of `data.dataset` leaves open."""
    return tuple(DATASETS.values()) if choice == AUTO else (DATASETS[choice],)


def find_tables(
    config: DataConfig, root: Root, files: Sequence[ListedFile], only_dicom: bool
) -> list[str]:
    """Return where the tables of the data set lie, found by name or else by their columns.

    Args:
        config: The choice of a data set.
        root: Reads them.
        files: The listing.
        only_dicom: Every image is a DICOM file, whose tags may name the patient.

    Raises:
        DataError: There is no table, or several could be meant.
    """
    uris = [file.uri for file in files if file.bytes and is_table(file.uri)]

    def fits(uri: str, data_set: DataSet, *, has_tags: bool = only_dicom) -> bool:
        head = root.read_required(uri, HEAD_BYTES)
        return data_set.matches(header_of(head, data_set.columns), has_tags)

    for data_set in candidates(config.dataset):
        named = [(pattern, uri) for uri in uris for pattern in _patterns(uri, data_set)]
        tables = [each for each in named if data_set.names_suffice or fits(each[1], data_set)]
        if tables:
            return _one_per_pattern(root, tables)
    if len(uris) <= MAX_CANDIDATES:  # else too many to open each: the user has to say
        known = candidates(config.dataset)
        lacking = [uri for uri in uris if any(fits(uri, each, has_tags=True) for each in known)]
        uris = [uri for uri in lacking if any(fits(uri, each) for each in known)]
        if lacking and not uris:
            raise DataError(_without_patients(root, lacking[0], files))
    if len(uris) == 1:
        return uris
    raise DataError(_ambiguous(root, uris) if uris else _none(config, root, files))


def is_table(uri: str) -> bool:
    """Tell by its name whether a file may be a table of images."""
    name = _name(uri)
    return name.endswith(TABLE_SUFFIXES) and name != BOX_LIST.casefold()


def _name(uri: str) -> str:
    return uri.rsplit("/", 1)[-1].casefold()


def _patterns(uri: str, data_set: DataSet) -> list[int]:
    """Return which of the data set's tables a file is by its name."""
    name = _name(uri).removesuffix(".gz")
    return [number for number, each in enumerate(data_set.tables) if fnmatch(name, each.casefold())]


def _one_per_pattern(root: Root, tables: list[tuple[int, str]]) -> list[str]:
    uris = [uri for _, uri in sorted(tables)]
    if len({pattern for pattern, _ in tables}) < len(tables):
        raise DataError(_ambiguous(root, uris))
    return uris


def _ambiguous(root: Root, uris: list[str]) -> str:
    return (
        f"{root.root} holds {len(uris)} CSVs that may describe the images: "
        f"{', '.join(uris[:MAX_CANDIDATES])}. Set data.csv to the right one."
    )


def _without_patients(root: Root, uri: str, files: Sequence[ListedFile]) -> str:
    table = f"{root.root.rstrip('/')}/{uri}"
    images = [file.uri for file in files if file.uri.casefold().endswith(IMAGE_SUFFIXES)]
    others = [uri for uri in images if not uri.casefold().endswith(DICOM_SUFFIX)]
    if not others or len(others) == len(images):
        return f"{table} does not say which patient an image is of: add the column `Patient ID`."
    return (
        f"{table} does not say which patient an image is of, and {others[0]} is not a DICOM file, "
        "whose tags may say it. Add the column `Patient ID`, or set data.images to the DICOM "
        "files, as in `**/*.dcm`."
    )


def _none(config: DataConfig, root: Root, files: Sequence[ListedFile]) -> str:
    looked_for = "; ".join(
        f"{each.title}: {' and '.join(each.tables)}, or a CSV with the columns "
        f"{', '.join(repr(each.columns[field][0]) for field in each.required)}"
        for each in candidates(config.dataset)
    )
    empty = [file.uri for file in files if is_table(file.uri) and not file.bytes]
    if empty:
        return f"{root.root.rstrip('/')}/{empty[0]} is empty. Copy it again, or set data.csv."
    found = [file.uri for file in files if is_table(file.uri)]
    shown = f": {', '.join(found[:SHOWN_TABLES])}" if found else ""
    return (
        f"There is no metadata CSV in {root.root}, at any depth. Looked for were, of "
        f"{looked_for} ({len(found)} CSVs found{shown}). Set data.csv to its path or URL."
    )


def data_set_of(choice: str, head: bytes, only_dicom: bool) -> DataSet:
    """Return the data set whose columns a table has, or has most of.

    Args:
        choice: `data.dataset`.
        head: The first bytes of the table.
        only_dicom: Every image is a DICOM file, whose tags may name the patient.
    """

    def num_matched(each: DataSet) -> float:
        required = each.required_of(only_dicom)
        found = match_columns(header_of(head, each.columns), each.columns)
        return sum(field in found for field in required) / len(required)

    return max(candidates(choice), key=num_matched)


def read_tables(
    config: DataConfig, contents: Sequence[bytes], names: Sequence[str], only_dicom: bool
) -> tuple[DataSet, Entries]:
    """Read a data set's tables and put them one below the other.

    Args:
        config: The choice of a data set, and how it is to be read.
        contents: The whole files.
        names: What to call each in an error or a log.
        only_dicom: Every image is a DICOM file.

    Raises:
        DataError: A table lacks a required column, or is not a table.
    """
    data_set = data_set_of(config.dataset, contents[0][:HEAD_BYTES], only_dicom)
    required = data_set.required_of(only_dicom)
    parts, notes = [], []
    for content, name in zip(contents, names, strict=True):
        rows, interpreted = read_columns(content, data_set.columns, required, name)
        parts.append(rows)
        notes += interpreted
    entries = data_set.read(pd.concat(parts, ignore_index=True), config)
    return data_set, replace(entries, notes=tuple(notes))
