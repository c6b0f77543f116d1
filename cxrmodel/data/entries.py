"""The metadata CSV in all the shapes it circulates in, read into one.

Known variants: `Patient Gender` or `Patient Sex`; underscores for spaces; unquoted brackets that
split into more columns; a trailing comma; ages as `058Y`, or of 400 and more.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from cxrmodel.errors import DataError

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "image": ("Image Index",),
    "labels": ("Finding Labels", "Finding Label"),
    "patient_id": ("Patient ID",),
    "age": ("Patient Age",),
    "sex": ("Patient Gender", "Patient Sex"),
    "view": ("View Position",),
    "follow_up": ("Follow-up #",),
}
"""Accepted names of each field; case, spaces, underscores and punctuation do not count."""

REQUIRED = ("image", "labels", "patient_id")
MAX_AGE_YEARS = 120
MAX_PATIENT_ID_CHARS = 64
MAX_FOLLOW_UP = 2**31 - 1
SHOWN_COLUMNS = 20

_AGE = re.compile(r"(\d{1,4})(?:\.0*)?\s*([YMWD]?)", re.IGNORECASE)
_COUNT = re.compile(r"(\d{1,10})(?:\.0*)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _canonical(column: str) -> str:
    return "".join(char for char in column.casefold() if char.isalnum())


def match_columns(header: list[str]) -> dict[str, int]:
    """Return the position of each field that a CSV's header row has."""
    positions: dict[str, int] = {}
    for position, column in enumerate(header):
        positions.setdefault(_canonical(column), position)
    found = {
        field: next((positions[_canonical(s)] for s in spellings if _canonical(s) in positions), -1)
        for field, spellings in SPELLINGS.items()
    }
    return {field: position for field, position in found.items() if position >= 0}


def header_of(head: bytes) -> list[str]:
    """Return the column names in the first bytes of a CSV, however damaged the rest is."""
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    return next(csv.reader(io.StringIO(text.partition("\n")[0])), [])


def has_required_columns(head: bytes) -> bool:
    """Tell whether the first bytes of a CSV name all required fields."""
    return set(REQUIRED) <= set(match_columns(header_of(head)))


def read_entries(path: Path, name: str) -> pd.DataFrame:
    """Read the CSV, one row a row of it, in its order.

    Args:
        path: Where it lies.
        name: What to call it in an error.

    Returns:
        Columns image, labels, patient_id (text, empty where the CSV has nothing usable), age
        (Int16 years), sex (`F`, `M`), view (`AP`, `PA`), follow_up (Int32); null where absent.

    Raises:
        DataError: A required column is missing, or the file is not a CSV in UTF-8.
    """
    raw = _read_text(path, name)
    entries = pd.DataFrame(
        {field: raw.get(field, "") for field in SPELLINGS},
        index=raw.index,
        dtype="str",
    )
    entries["patient_id"] = _converted(entries["patient_id"], parse_patient_id).astype("str")
    entries["age"] = _converted(entries["age"], parse_age).astype("Int16")
    entries["sex"] = _converted(entries["sex"], parse_sex).astype("str")
    entries["view"] = _converted(entries["view"], parse_view).astype("str")
    entries["follow_up"] = _converted(entries["follow_up"], parse_follow_up).astype("Int32")
    return entries


def _read_text(path: Path, name: str) -> pd.DataFrame:
    try:
        header = _checked_header(path, name)
        positions = match_columns(header)
        frame = pd.read_csv(
            path,
            usecols=list(positions.values()),  # also makes pandas tolerate surplus commas in rows
            index_col=False,
            dtype="str",
            na_filter=False,
            skipinitialspace=True,
            encoding="utf-8-sig",
        )
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} is not text in UTF-8 ({error}). Save it as a CSV in UTF-8."
        ) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as error:
        raise DataError(f"{name} cannot be read as a CSV: {error}") from error
    frame.columns = pd.Index(sorted(positions, key=positions.__getitem__))
    return pd.DataFrame({field: frame[field].fillna("").str.strip() for field in frame})


def _checked_header(path: Path, name: str) -> list[str]:
    with path.open("rb") as stream:
        header = header_of(stream.read(1 << 16))
    missing = [field for field in REQUIRED if field not in match_columns(header)]
    if missing:
        accepted = "; ".join(
            f"{field}: {' or '.join(map(repr, SPELLINGS[field]))}" for field in missing
        )
        found = ", ".join(repr(column[:60]) for column in header[:SHOWN_COLUMNS]) or "none"
        raise DataError(
            f"{name} lacks required columns. Accepted spellings of what is missing (case, spaces "
            f"and underscores do not count): {accepted}. Columns found: {found}."
        )
    return header


def _converted(texts: pd.Series, parse: Callable[[str], object]) -> pd.Series:
    distinct = {text: parse(str(text)) for text in texts.unique()}
    return texts.map(distinct)


def parse_patient_id(text: str) -> str:
    """Return the patient's id, empty where it is not usable.

    `00012`, `12` and `12.0` are one patient: a table that went through a spreadsheet must not
    turn one patient into two, of whom one is in train and one in test.
    """
    text = text.strip()
    if _CONTROL.search(text) or len(text) > MAX_PATIENT_ID_CHARS or text.casefold() == "nan":
        return ""
    number = re.fullmatch(r"0*([0-9]+)(?:\.0*)?", text)
    return number.group(1) if number else text


def parse_age(text: str) -> int | None:
    """Return an age in whole years from `58`, `058Y` or `011M`; None where absent or absurd."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        return None
    number, unit = int(match.group(1)), match.group(2).upper()
    years = number // {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}[unit]
    return years if years <= MAX_AGE_YEARS else None


def parse_sex(text: str) -> str | None:
    """Return `F` or `M`; None for anything else."""
    return {"f": "F", "female": "F", "m": "M", "male": "M"}.get(text.strip().casefold())


def parse_view(text: str) -> str | None:
    """Return `AP` or `PA`; None for anything else."""
    view = text.strip().upper()
    return view if view in ("AP", "PA") else None


def parse_follow_up(text: str) -> int | None:
    """Return the number of the follow-up; None where absent."""
    match = _COUNT.fullmatch(text.strip())
    number = int(match.group(1)) if match else MAX_FOLLOW_UP + 1
    return number if number <= MAX_FOLLOW_UP else None
