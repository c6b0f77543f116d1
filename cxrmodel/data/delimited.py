"""Tables as text, in the encodings, separators and spellings that they circulate in.

Read are UTF-8 with or without a byte order mark, UTF-16 with one, and Latin-1 where a file is
neither; commas, semicolons and tabs; any line ends; and all of these compressed with gzip.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import logging
import re
import zlib
from collections.abc import Iterable, Mapping

import pandas as pd

from cxrmodel.errors import DataError

Columns = Mapping[str, tuple[str, ...]]
"""Accepted names of each field; case, spaces, underscores and punctuation do not count."""

SEPARATORS = (",", ";", "\t")
HEAD_BYTES = 1 << 16
MAX_TABLE_BYTES = 1 << 30
SHOWN_COLUMNS = 20

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP = zlib.MAX_WBITS | 16
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LINE_END = re.compile(r"\r\n|\r|\n")

logger = logging.getLogger(__name__)


def match_columns(header: list[str], columns: Columns) -> dict[str, int]:
    """Return the position of each field that a header row has, the first where it is repeated."""
    positions: dict[str, int] = {}
    for position, column in enumerate(header):
        positions.setdefault(_canonical(column), position)
    found = {
        field: next((positions[_canonical(s)] for s in spellings if _canonical(s) in positions), -1)
        for field, spellings in columns.items()
    }
    return {field: position for field, position in found.items() if position >= 0}


def _canonical(column: str) -> str:
    return "".join(char for char in column.casefold() if char.isalnum())


def header_of(head: bytes, columns: Columns) -> list[str]:
    """Return the column names in the first bytes of a table, however damaged the rest is."""
    return _header(_decoded_head(head), columns)[0]


def _decoded_head(head: bytes) -> str:
    if head.startswith(_GZIP_MAGIC):
        try:
            head = zlib.decompressobj(_GZIP).decompress(head, HEAD_BYTES)
        except zlib.error:
            return ""
    return head.decode("utf-16" if head.startswith(_UTF_16) else "utf-8-sig", errors="replace")


def separator_of(text: str, columns: Columns) -> str:
    """Return what separates the fields of a table, as its header line tells."""
    return _header(text, columns)[1]


def _header(text: str, columns: Columns) -> tuple[list[str], str]:
    """Return the column names and the separator that makes most of them known."""
    line = _LINE_END.split(text[:HEAD_BYTES].lstrip("\r\n "), maxsplit=1)[0]
    readings = {separator: _fields(line, separator) for separator in SEPARATORS}
    best = max(readings, key=lambda separator: len(match_columns(readings[separator], columns)))
    return readings[best], best


def _fields(line: str, separator: str) -> list[str]:
    return next(csv.reader(io.StringIO(line), delimiter=separator), [])


def decode_table(content: bytes, name: str) -> str:
    """Return the text of a table's file.

    Args:
        content: The whole file.
        name: What to call it in an error or a log.

    Raises:
        DataError: It is damaged, or unbearably large once decompressed.
    """
    if content.startswith(_GZIP_MAGIC):
        content = _decompressed(content, name)
    encoding = "utf-16" if content.startswith(_UTF_16) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-16":
            raise DataError(f"{name} begins as UTF-16 and is not: {error}") from error
        logger.warning("%s is not in UTF-8 (%s), so it is read as Latin-1", name, error)
        return content.decode("latin-1")


def _decompressed(content: bytes, name: str) -> bytes:
    try:
        plain = gzip.GzipFile(fileobj=io.BytesIO(content)).read(MAX_TABLE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} is damaged: it cannot be decompressed ({error}).") from error
    if len(plain) > MAX_TABLE_BYTES:
        raise DataError(f"{name} has more than {MAX_TABLE_BYTES >> 20:,} MiB uncompressed.")
    return plain


def read_columns(
    content: bytes, columns: Columns, required: Iterable[str], name: str
) -> pd.DataFrame:
    """Read the known columns of a table, one row a row of it, in its order.

    Args:
        content: The whole file.
        columns: Accepted spellings of each field.
        required: Fields that it must have.
        name: What to call it in an error or a log.

    Returns:
        A column of text a field, empty where the table has none.

    Raises:
        DataError: A required column is missing, or the file is not a table.
    """
    text = decode_table(content, name)
    try:
        header, separator = _header(text, columns)
        positions = match_columns(header, columns)
        _check_required(header, columns, [each for each in required if each not in positions], name)
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            usecols=list(positions.values()),  # also makes pandas tolerate surplus commas in rows
            index_col=False,
            dtype="str",
            na_filter=False,
            skipinitialspace=True,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as error:
        raise DataError(f"{name} cannot be read as a CSV: {error}") from error
    frame.columns = pd.Index(sorted(positions, key=positions.__getitem__))
    found = {field: frame[field].fillna("").str.strip() for field in frame}
    return pd.DataFrame({each: found.get(each, "") for each in columns}, frame.index, dtype="str")


def _check_required(header: list[str], columns: Columns, missing: list[str], name: str) -> None:
    if not missing:
        return
    accepted = "; ".join(f"{field}: {' or '.join(map(repr, columns[field]))}" for field in missing)
    found = ", ".join(repr(column[:60]) for column in header[:SHOWN_COLUMNS]) or "none"
    raise DataError(
        f"{name} lacks required columns. Accepted spellings of what is missing (case, spaces "
        f"and underscores do not count): {accepted}. Columns found: {found}."
    )
