"""Which data set a root holds and where its tables lie, or what is lacking to tell."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from fnmatch import fnmatch
from functools import cache

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.any_table import ANY_TABLE, describe_guess, has_image_column
from cxrmodel.data.datasets.boxes import BOX_LISTS
from cxrmodel.data.datasets.data_set import DataSet, JoinedTable
from cxrmodel.data.datasets.delimited import (
    GZIP_MAGIC,
    HEAD_BYTES,
    Columns,
    column_list,
    header_of,
    match_columns,
)
from cxrmodel.data.datasets.registry import candidates
from cxrmodel.data.datasets.table_forms import WHOLE_SUFFIXES, as_csv
from cxrmodel.data.files.listing import RASTER_SUFFIXES, TABLE_SUFFIXES, ListedFile, is_image
from cxrmodel.data.files.root import Root
from cxrmodel.errors import DataError

PACKED = (".gz", ".zip")
NOT_MAIN = ".json"  # seldom a table; read where a data set names it
MAIN_SUFFIXES = tuple(each for each in TABLE_SUFFIXES if each != NOT_MAIN)
_BOX_LISTS = frozenset(map(str.casefold, BOX_LISTS))
MAX_CANDIDATES = 20
SHOWN_TABLES = 5
SHOWN_COLUMNS = 8


def find_tables(
    config: DataConfig, root: Root, files: Sequence[ListedFile], only_dicom: bool
) -> list[str]:
    """Return where the tables of the data set lie, found by name or else by their columns.

    Args:
        config: The choice of a data set.
        root: Reads the tables.
        files: The listing.
        only_dicom: Every image is a DICOM file, whose tags may name the patient.

    Returns:
        The main tables, then those that are joined to them; none where `data.dataset` is `table`
        and there is no table.

    Raises:
        DataError: There is no table, or several could be meant.
    """
    return _Search(config, root, files, only_dicom).find()


def is_table(uri: str) -> bool:
    """Tell by its name whether a file may be a table of images."""
    name = _name(uri)
    return name.endswith(MAIN_SUFFIXES) and name not in _BOX_LISTS


def _name(uri: str) -> str:
    return uri.rsplit("/", 1)[-1].casefold()


def _is_named(uri: str, pattern: str) -> bool:
    name = _name(uri)
    plain = next((name.removesuffix(each) for each in PACKED if name.endswith(each)), name)
    return fnmatch(plain, pattern.casefold())


class _Search:
    """One look for tables; the head of each is read once."""

    def __init__(
        self, config: DataConfig, root: Root, files: Sequence[ListedFile], only_dicom: bool
    ) -> None:
        self.config, self.root, self.files = config, root, files
        self.has_patients = only_dicom or bool(config.patient_from)
        tables = [f for f in files if f.uri.casefold().endswith(TABLE_SUFFIXES)]
        self.tables = [file.uri for file in tables if file.bytes]
        self.uris = [uri for uri in self.tables if is_table(uri)]
        self.empty = [f.uri for f in tables if is_table(f.uri) and not f.bytes]
        self.head = cache(self._head)

    def find(self) -> list[str]:
        """Return the main tables and those joined to them."""
        if self.config.dataset == ANY_TABLE.name:
            return self._any_table()
        for data_set in candidates(self.config.dataset):
            tables = self._named(data_set)
            if tables:
                return [*tables, *self._joined(data_set)]
        self._refuse_too_many()
        return self._by_columns()

    def _named(self, data_set: DataSet) -> list[str]:
        """Return the tables with the names of a data set's, one for each of these."""
        named = [
            [
                uri
                for uri in self.uris
                if _is_named(uri, pattern) and (data_set.names_suffice or self._fits(uri, data_set))
            ]
            for pattern in data_set.tables
        ]
        return [self._only(uris) for uris in named if uris]

    def _by_columns(self) -> list[str]:
        known = candidates(self.config.dataset)
        lacking = [u for u in self.uris if any(self._fits(u, x, has_patients=True) for x in known)]
        fitting = {u: x for x in reversed(known) for u in lacking if self._fits(u, x)}
        if lacking and not fitting:
            raise DataError(self._without_patients(lacking[0]))
        if not fitting:
            raise DataError(self._nothing_fits())
        uri = self._only(sorted(fitting))
        return [uri, *self._joined(fitting[uri])]

    def _any_table(self) -> list[str]:
        self._refuse_too_many()
        columns = self.config.columns
        named = [uri for uri in self.uris if has_image_column(self.head(uri), columns)]
        tables = named or self.uris
        return [self._only(tables)] if tables else []

    def _joined(self, data_set: DataSet) -> list[str]:
        """Return the tables that are joined to a data set's main ones."""
        found = []
        for table in data_set.joined:
            uri = self._table_for(table)
            if not uri and not table.is_optional:
                raise DataError(self._incomplete(data_set, table))
            found += [uri] if uri else []
        return found

    def _table_for(self, table: JoinedTable) -> str:
        for pattern in table.tables:
            named = [uri for uri in self.tables if _is_named(uri, pattern)]
            fitting = [uri for uri in named if table.matches(self._header(uri, table.columns))]
            if fitting:
                return self._only(fitting)
        return ""

    def _fits(self, uri: str, data_set: DataSet, *, has_patients: bool = False) -> bool:
        header = self._header(uri, data_set.columns)
        return data_set.matches(header, has_patients or self.has_patients)

    def _header(self, uri: str, columns: Columns) -> list[str]:
        return header_of(self.head(uri), columns)

    def _head(self, uri: str) -> bytes:
        limit = None if uri.casefold().endswith(WHOLE_SUFFIXES) else HEAD_BYTES
        content = self.root.read_required(uri, limit)
        return as_csv(content, self._place(uri))[:HEAD_BYTES]

    def _only(self, uris: list[str]) -> str:
        """Return the one table that all of these are copies of; different ones are refused."""
        if len(uris) > 1 and len({self._unpacked(uri) for uri in uris}) > 1:
            raise DataError(self._ambiguous(uris))
        return min(uris, key=lambda uri: (uri.count("/"), uri))

    def _unpacked(self, uri: str) -> bytes:
        content = self.root.read_required(uri)
        return gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content

    def _refuse_too_many(self) -> None:
        if len(self.uris) > MAX_CANDIDATES:  # to open each: the user has to say
            raise DataError(self._ambiguous(self.uris))

    def _place(self, uri: str) -> str:
        return f"{self.root.root.rstrip('/')}/{uri}"

    def _ambiguous(self, uris: list[str]) -> str:
        return (
            f"{self.root.root} holds {len(uris)} tables that may describe the images: "
            f"{', '.join(uris[:MAX_CANDIDATES])}. Set data.csv to the right one."
        )

    def _incomplete(self, data_set: DataSet, table: JoinedTable) -> str:
        needed = " or ".join(table.tables)
        found = ", ".join(self.uris[:SHOWN_TABLES]) or "none"
        return (
            f"{data_set.title} needs a table {needed} with the columns "
            f"{column_list([names[0] for names in table.columns.values()], SHOWN_COLUMNS)}, and "
            f"{self.root.root} has none (tables found: {found}). Download it, and put it beside "
            "the others, or set data.csv to the folder that holds all of them."
        )

    def _without_patients(self, uri: str) -> str:
        images = [file.uri for file in self.files if is_image(file.uri)]
        others = [each for each in images if each.casefold().endswith(RASTER_SUFFIXES)]
        advice = (
            " Add the column `Patient ID`, or set data.patient_from to a regular expression that "
            "finds the patient in an image's path."
        )
        if not others or len(others) == len(images):
            return f"{self._place(uri)} does not say which patient an image is of.{advice}"
        return (
            f"{self._place(uri)} does not say which patient an image is of, and {others[0]} is not "
            f"a DICOM file, whose tags may say it.{advice} Or set data.images to the DICOM files, "
            "as in `**/*.dcm`."
        )

    def _nothing_fits(self) -> str:
        if self.empty and not self.uris:
            return f"{self._place(self.empty[0])} is empty. Copy it again, or set data.csv."
        if not self.uris:
            return (
                f"There is no table in {self.root.root}, at any depth: no file ends in "
                f"{', '.join(MAIN_SUFFIXES)}. "
                "Set data.csv to its path or URL; or, for images without labels, set data.dataset "
                "to table."
            )
        return f"{self._found()} {self._closest()} {self._how_to_read(self.uris[0])}"

    def _found(self) -> str:
        shown = [
            f"{uri} ({column_list(self._header(uri, {}), SHOWN_COLUMNS)})"
            for uri in self.uris[:SHOWN_TABLES]
        ]
        more = len(self.uris) - len(shown)
        chosen = candidates(self.config.dataset)
        known = chosen[0].title if len(chosen) == 1 else "a known data set"
        return (
            f"No table in {self.root.root} is of {known}. Found, with their columns: "
            f"{'; '.join(shown)}{f'; and {more} more' if more else ''}."
        )

    def _closest(self) -> str:
        """Say which data set one of the tables comes closest to, and what it lacks."""

        def missing(uri: str, data_set: DataSet) -> list[str]:
            header = self._header(uri, data_set.columns)
            found = match_columns(header, data_set.columns)
            required = data_set.required_of(self.has_patients)
            return [data_set.columns[field][0] for field in required if field not in found]

        def share(pair: tuple[str, DataSet]) -> float:
            return len(missing(*pair)) / len(pair[1].required_of(self.has_patients))

        pairs = [(uri, each) for each in candidates(self.config.dataset) for uri in self.uris]
        uri, data_set = min(pairs, key=share)
        if share((uri, data_set)) == 1 and len(candidates(self.config.dataset)) > 1:
            return "None of them has a column of a known data set."
        lacking = column_list(missing(uri, data_set), SHOWN_COLUMNS)
        return f"Closest is {data_set.title}: {uri} lacks its {lacking}."

    def _how_to_read(self, uri: str) -> str:
        guess = describe_guess(self.head(uri), self.config.columns)
        return (
            f"If the table lies elsewhere, set data.csv to its path or URL. If it is {uri}, set "
            f"data.dataset to table: {guess}"
        )
