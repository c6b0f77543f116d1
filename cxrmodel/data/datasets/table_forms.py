"""Tables that are no text: in a zip archive, as Parquet or as JSON; all become CSV."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterable

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxrmodel.data.files.listing import TABLE_SUFFIXES
from cxrmodel.errors import DataError

MAX_TABLE_BYTES = 1 << 30
LIST_SEPARATOR = "|"  # between the names of a list in one cell
WHOLE_SUFFIXES = (".parquet", ".zip", ".json")
"""Endings of tables whose first bytes do not hold their header."""

JSON_SUFFIX = ".json"

_ZIP, _PARQUET = b"PK\x03\x04", b"PAR1"
_JUNK = "__MACOSX/"


def as_csv(content: bytes, name: str) -> bytes:
    """Return a table's file as that of a CSV, unchanged where it is text (or gzip) already.

    A zip archive must hold one table. Of Parquet and JSON, columns of text, numbers, dates and
    lists of these are kept; images and the like are left out.

    Args:
        content: The whole file.
        name: What to call it in an error.

    Raises:
        DataError: It is damaged, or holds no table or several.
    """
    if content.startswith(_ZIP):
        content = _unpacked(content, name)
    if content.startswith(_PARQUET):
        return _parquet_as_csv(content, name)
    if name.casefold().endswith(JSON_SUFFIX):
        return _json_as_csv(content, name)
    return content


def _unpacked(content: bytes, name: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [each for each in archive.infolist() if not each.is_dir()]
            tables = _tables_of([each.filename for each in members])
            if len(tables) != 1:
                raise DataError(_not_one_table(name, [each.filename for each in members], tables))
            with archive.open(tables[0]) as stream:
                plain = stream.read(MAX_TABLE_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"{name} is a zip archive that cannot be unpacked ({error}). Copy it again, or unpack "
            "it and set data.csv to the table."
        ) from error
    if len(plain) > MAX_TABLE_BYTES:
        raise DataError(
            f"{name} has more than {MAX_TABLE_BYTES >> 20:,} MiB unpacked, which no table of "
            "images has. Set data.csv to the table."
        )
    return plain


def _tables_of(members: Iterable[str]) -> list[str]:
    return [
        each
        for each in members
        if each.casefold().endswith(TABLE_SUFFIXES) and not each.startswith(_JUNK)
    ]


def _not_one_table(name: str, members: list[str], tables: list[str]) -> str:
    if any(each.startswith("xl/") for each in members):
        return (
            f"{name} is no table of text but an Excel workbook. Save the sheet as CSV (UTF-8) and "
            "set data.csv to it."
        )
    shown = ", ".join((tables or members)[:5])
    found = f"{len(tables)} tables ({shown})" if tables else f"no table (it holds {shown})"
    return (
        f"{name} is a zip archive with {found}. Unpack it, or set data.csv to "
        "zip://NAME_WITHIN::PATH_OF_THE_ARCHIVE."
    )


def _parquet_as_csv(content: bytes, name: str) -> bytes:
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        kept = [field.name for field in file.schema_arrow if _is_plain(field.type)]
        frame = file.read(columns=kept).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name} cannot be read as Parquet: {error}. Copy it again.") from error
    return _frame_as_csv(frame)


def _is_plain(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_plain(kind.value_type)
    return not (
        pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    )


def _json_as_csv(content: bytes, name: str) -> bytes:
    """Convert a list of objects, or lines of one object each."""
    try:
        is_list = content.lstrip().startswith(b"[")
        rows = json.loads(content) if is_list else [json.loads(x) for x in content.splitlines()]
    except ValueError as error:
        raise DataError(
            f"{name} cannot be read as JSON, as a list or in lines: {error}. Copy it again."
        ) from error
    return _frame_as_csv(pd.DataFrame([row for row in rows if isinstance(row, dict)]))


def _frame_as_csv(frame: pd.DataFrame) -> bytes:
    frame = frame.apply(lambda column: column.map(_joined) if column.dtype == object else column)
    return frame.to_csv(index=False).encode()


def _joined(cell: object) -> object:
    if isinstance(cell, str) or not isinstance(cell, Iterable):
        return cell
    return LIST_SEPARATOR.join(str(each) for each in cell)
