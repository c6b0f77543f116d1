"""Tables as text, in the encodings, separators and spellings that occur in practice.

This reads UTF-8 and UTF-16 with or without a byte order mark, and Latin-1 where a file is neither;
commas, semicolons and tabs; any line ends; R's unnamed column of row names; and all of these
compressed with gzip.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import logging
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice

import pandas as pd

from cxrmodel.errors import DataError

Columns = Mapping[str, tuple[str, ...]]
"""Accepted names of each field; case, spaces, underscores and punctuation do not count."""

SEPARATORS = (",", ";", "\t")
HEAD_BYTES = 1 << 16
MAX_TABLE_BYTES = 1 << 30
SHOWN_COLUMNS = 20
SHOWN_CHARS = 60
MAX_TITLE_LINES = 20

GZIP_MAGIC = b"\x1f\x8b"
_GZIP = zlib.MAX_WBITS | 16
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LINE_END = re.compile(r"\r\n|\r|\n")
_UNCLOSED = re.compile(r"EOF inside string starting at row (\d+)")

UNPACK = "Unpack it, or set data.csv to zip://NAME_WITHIN::PATH_OF_THE_ARCHIVE"
EXPORT = "Save the sheet as CSV (UTF-8) and set data.csv to it"
DOWNLOAD = "Download the table itself, signed in where its site asks for it"
NOT_TABLES: Mapping[bytes, tuple[str, str]] = {
    b"PK\x03\x04": ("a zip archive or an Excel workbook", f"{UNPACK}; of a workbook: {EXPORT}"),
    b"PAR1": ("a Parquet file", "Write it as CSV"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", EXPORT),
    b"SQLite format 3": ("an SQLite database", "Export its table as CSV"),
    b"%PDF": ("a PDF", DOWNLOAD),
    b"BZh": ("compressed with bzip2", "Decompress it, or compress it with gzip"),
    b"\xfd7zXZ": ("compressed with xz", "Decompress it, or compress it with gzip"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "Decompress it, or compress it with gzip"),
    b"7z\xbc\xaf": ("a 7z archive", "Unpack it"),
    b"Rar!": ("a RAR archive", "Unpack it"),
    b"\x89PNG": ("a PNG image", "Set data.csv to the table"),
    b"\xff\xd8\xff": ("a JPEG image", "Set data.csv to the table"),
    b"version https://git-lfs": ("a pointer of Git LFS", "Fetch the file with `git lfs pull`"),
    codecs.BOM_UTF32_LE: ("text in UTF-32", "Save it as UTF-8"),
    codecs.BOM_UTF32_BE: ("text in UTF-32", "Save it as UTF-8"),
    b"<": ("a web page or XML", DOWNLOAD),
    b"{": ("JSON", "Write it as CSV"),
    b"[": ("JSON", "Write it as CSV"),
}
"""First bytes of files that are not text, what they are, and what to do.

Parquet and zip are read, as `table_forms` says, but not within gzip.
"""

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


def _encoding_of(content: bytes) -> str:
    """Return the encoding by byte order mark, or by the zeros of UTF-16; UTF-8 otherwise."""
    if content.startswith(_UTF_16):
        return "utf-16"
    low, high = content[0:HEAD_BYTES:2], content[1:HEAD_BYTES:2]
    if high and not low.count(0) and high.count(0) > len(high) / 2:
        return "utf-16-le"
    if high and not high.count(0) and low.count(0) > len(low) / 2:
        return "utf-16-be"
    return "utf-8-sig"


def _decoded_head(head: bytes) -> str:
    if head.startswith(GZIP_MAGIC):
        try:
            head = zlib.decompressobj(_GZIP).decompress(head, HEAD_BYTES)
        except zlib.error:
            return ""
    return head.decode(_encoding_of(head), errors="replace")


def separator_of(text: str, columns: Columns) -> str:
    """Return what separates the fields of a table, judged by its header line."""
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
        DataError: It is damaged, is not text, or is far too large once decompressed.
    """
    if content.startswith(GZIP_MAGIC):
        content = _decompressed(content, name)
    _check_is_text(content, name)
    encoding = _encoding_of(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding.startswith("utf-16"):
            raise DataError(
                f"{name} begins as UTF-16, and from byte {error.start:,} on it is not: it is cut "
                "short or damaged. Copy it again, or save it as UTF-8."
            ) from error
        logger.warning(
            "%s is not in UTF-8 (byte %d is 0x%02X), so it is read as Latin-1",
            name,
            error.start,
            content[error.start],
        )
        return content.decode("latin-1")


def _check_is_text(content: bytes, name: str) -> None:
    head = content[:HEAD_BYTES].removeprefix(codecs.BOM_UTF8).lstrip()
    for magic, (kind, remedy) in NOT_TABLES.items():
        if head.startswith(magic):
            raise DataError(f"{name} is no CSV but {kind}. {remedy}.")


def _decompressed(content: bytes, name: str) -> bytes:
    try:
        plain = gzip.GzipFile(fileobj=io.BytesIO(content)).read(MAX_TABLE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{name} is damaged: it cannot be decompressed as gzip. Copy it again."
        ) from error
    if len(plain) > MAX_TABLE_BYTES:
        raise DataError(
            f"{name} has more than {MAX_TABLE_BYTES >> 20:,} MiB uncompressed, which no table of "
            "images has. Set data.csv to the table."
        )
    return plain


def read_columns(
    content: bytes, columns: Columns, required: Iterable[str], name: str
) -> tuple[pd.DataFrame, list[str]]:
    """Read the known columns of a table, one row per row of it, in its order.

    Args:
        content: The whole file.
        columns: Accepted spellings of each field.
        required: Fields that it must have.
        name: What to call it in an error or a log.

    Returns:
        One text column per field, empty where the table has none; and a sentence on each thing that
        had to be interpreted.

    Raises:
        DataError: A required column is missing or there twice, or the file is not a table.
    """
    text = decode_table(content, name)
    if not text.strip():
        raise DataError(f"{name} is empty. Copy it again, or set data.csv to the table.")
    header, separator = _header(text, columns)
    positions = match_columns(header, columns)
    missing = [each for each in required if each not in positions]
    if missing:
        raise DataError(_lacking(text, header, columns, missing, name))
    twins = {at: _twins(header, at) for at in positions.values()}
    wanted = sorted({*twins, *chain(*twins.values())})
    with readable(name):
        fields, notes = _read_fields(text, separator, len(header), wanted, name)
    fields = fields.fillna("").apply(lambda field: field.str.strip())
    for at, others in twins.items():
        _check_twins(fields[[at, *others]], header[at], name)
    found = {field: fields[at] for field, at in positions.items()}
    texts = {each: found.get(each, "") for each in columns}
    return pd.DataFrame(texts, fields.index, dtype="str"), notes


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn a CSV parser's errors into a DataError that names the file."""
    try:
        yield
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as error:
        row = _UNCLOSED.search(str(error))
        problem = str(error).removeprefix("Error tokenizing data. C error: ").strip().rstrip(".")
        if row:
            problem = f"a quote that opens in line {int(row.group(1)) + 1:,} is never closed"
        raise DataError(
            f"{name} cannot be read as a CSV: {problem}. Correct it there, or copy the table again."
        ) from error


def _read_fields(
    text: str, separator: str, num_columns: int, wanted: list[int], name: str
) -> tuple[pd.DataFrame, list[str]]:
    """Return one column per wanted position of the header, named by it, and notes."""

    def read(positions: list[int], names: list[int] | None = None) -> pd.DataFrame:
        return pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=0,
            names=names,
            usecols=positions,  # also makes pandas tolerate surplus commas in rows
            index_col=False,
            dtype="str",
            na_filter=False,
            skipinitialspace=True,
        ).fillna("")

    if _may_have_row_names(text, separator, num_columns):
        shifted = [at + 1 for at in wanted]
        frame = read(sorted({0, num_columns, *shifted}), list(range(num_columns + 1)))
        counters, last = frame[0].str.strip(), frame[num_columns].str.strip()
        if counters.str.isdigit().all() and counters.is_unique and last.ne("").any():
            file = name.rsplit("/", 1)[-1]  # without its folder, which must not change the output
            note = (
                f"The rows of {file} have one field more than its header, and begin with a number "
                "that is never the same: these are read as R's row names, before the first column."
            )
            logger.warning("%s", note)
            return frame[shifted].set_axis(wanted, axis=1), [note]
    return read(wanted).set_axis(wanted, axis=1), []


def _may_have_row_names(text: str, separator: str, num_columns: int) -> bool:
    """Tell by its first row whether R may have written a table with row names."""
    lines = csv.reader(io.StringIO(text[:HEAD_BYTES], newline=""), delimiter=separator)
    rows = [row for row in islice(lines, MAX_TITLE_LINES) if row]
    return len(rows) > 1 and len(rows[1]) == num_columns + 1 and rows[1][0].strip().isdigit()


def _twins(header: list[str], at: int) -> list[int]:
    names = [_canonical(column) for column in header]
    return [other for other, name in enumerate(names) if name == names[at] and other != at]


def _check_twins(fields: pd.DataFrame, column: str, name: str) -> None:
    """Refuse a column that occurs twice with different values: it is unclear which is right."""
    first = fields.iloc[:, 0]
    own, *others = fields.columns.astype(int).tolist()
    for other in others:
        differs = fields[other] != first
        if differs.any():
            row = int(differs.to_numpy().argmax())
            raise DataError(
                f"{name} has the column {_shown(column)} twice, as its columns "
                f"{own + 1} and {other + 1}, and they differ, for example in row "
                f"{row + 1:,}: "
                f"{_shown(first.iloc[row])} and {_shown(fields[other].iloc[row])}. Delete one."
            )


def _lacking(text: str, header: list[str], columns: Columns, missing: list[str], name: str) -> str:
    accepted = "; ".join(f"{field}: {' or '.join(map(repr, columns[field]))}" for field in missing)
    return (
        f"{name} lacks required columns. Accepted spellings of what is missing (case, spaces "
        f"and underscores do not count): {accepted}. Columns found: {column_list(header)}."
        f"{_hint(text, header, columns, missing)}"
    )


def _hint(text: str, header: list[str], columns: Columns, missing: list[str]) -> str:
    lines = _LINE_END.split(text[:HEAD_BYTES].lstrip("\r\n "))
    for number, line in enumerate(lines[1:MAX_TITLE_LINES], start=2):
        if set(missing) <= set(match_columns(_header(line, columns)[0], columns)):
            return f" Line {number} has them: delete the lines above it."
    if len(lines) == 1 and len(text) > HEAD_BYTES:
        return f" All its {len(text):,} characters are one line: its line ends were lost."
    if len(header) == 1:
        return " Columns are separated by commas, semicolons or tabs."
    return ""


def column_list(names: Sequence[str], limit: int = SHOWN_COLUMNS) -> str:
    """Return names of columns for a message, as many as the limit."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return (", ".join(map(_shown, names[:limit])) or "none") + more


def _shown(text: str) -> str:
    printable = text if text.isprintable() else text.encode("unicode_escape").decode()
    return repr(printable[:SHOWN_CHARS])
