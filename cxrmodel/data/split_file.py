"""The table of `split.file`: which part each image, or each patient, belongs to."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxrmodel.config import DataConfig, SplitConfig
from cxrmodel.data.datasets.data_set import converted, parse_patient_id
from cxrmodel.data.datasets.delimited import (
    HEAD_BYTES,
    Columns,
    header_of,
    match_columns,
    read_columns,
)
from cxrmodel.data.datasets.joins import image_names
from cxrmodel.data.datasets.name_rules import (
    AS_THEY_ARE,
    explain_mismatch,
    match_names,
    quoted,
)
from cxrmodel.data.datasets.pseudonyms import patient_salt, pseudonyms
from cxrmodel.data.files.root import read_location
from cxrmodel.errors import DataError, LeakageError, SplitError
from cxrmodel.storage.disk import explain_full_disk
from cxrmodel.storage.layout import SPLIT_FILE

COLUMNS: Columns = {
    "image": (
        "image", "Image Index", "image_id", "image_name", "image_file", "image_path",
        "path_to_image", "file", "filename", "file_path", "path", "dicom_id",
    ),
    "patient_id": ("patient_id", "patient", "patient_number", "subject_id", "subject"),
    "part": ("split", "part", "subset", "set", "partition", "phase"),
}  # fmt: skip

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validate", "validation", "dev"),
    "test": ("test", "testing"),
    "train_val": ("train_val",),
}
"""Accepted words of each part; case, spaces, underscores and punctuation do not count."""

NO_PART = ("", "na", "nan", "none", "null")
PARQUET_MAGIC = b"PAR1"
KEY_CHARS = 16
SHOWN_WORDS = 5
SHOWN_COLUMNS = 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitTable:
    """What `split.file` says, as a local copy in one form.

    Attributes:
        fingerprint: sha256 over the names, their parts and the columns that these were read from;
            where the file lies, its format and the order of its rows do not count.
        path: Parquet file of two text columns: `image` or `patient_id`, each value once, and
            `part`: `train`, `val`, `test`, or `train_val`, from which validation is drawn.
        note: A sentence on the columns that were read.
    """

    fingerprint: str
    path: Path
    note: str


def read_split_table(split: SplitConfig, data: DataConfig, scratch: Path) -> SplitTable:
    """Read the table of `split.file`.

    Where `data.hash_patient_ids` is on, the patient ids of the table are replaced by the same
    pseudonyms as those of the data set.

    Args:
        split: Its setting `file` says where the table lies.
        data: Whether patients get pseudonyms.
        scratch: Node-local folder that keeps the copy.

    Raises:
        DataError: It cannot be read, or is no table with the columns that are needed.
        SplitError: A part is not understood, or an image is in two parts.
        LeakageError: A patient is in two parts.
        OSError: The store cannot be reached; worth another try.
    """
    location = str(split.file)
    try:
        table, note = _read(read_location(location), location)
    except DataError as error:  # the readers name the setting of the data set's own table
        raise DataError(f"split.file: {error}".replace("data.csv", "split.file")) from error
    salt = patient_salt(data)
    if salt is not None and "patient_id" in table:
        table["patient_id"] = pseudonyms(table["patient_id"], salt)
    table = table.sort_values(str(table.columns[0]), ignore_index=True)
    logger.info("%s", note)
    lines = [note, *("\0".join(row) for row in table.itertuples(index=False))]
    fingerprint = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    directory = scratch / "sources" / fingerprint[:KEY_CHARS]
    return SplitTable(fingerprint, _keep(table, directory), note)


def _keep(table: pd.DataFrame, directory: Path) -> Path:
    path = directory / SPLIT_FILE
    partial = directory / f"{uuid.uuid4().hex}.partial"
    with explain_full_disk(**{"store.scratch": directory}):
        directory.mkdir(parents=True, exist_ok=True)
        try:
            table.to_parquet(partial, index=False, compression="zstd")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    os.utime(directory)  # marks it as in use, for whatever cleans scratch
    return path


def _read(content: bytes, name: str) -> tuple[pd.DataFrame, str]:
    """Return the rows that have a part, each name once, and a note on the columns."""
    texts, header = _texts(content, name)
    positions = match_columns(header, COLUMNS)
    key = "image" if "image" in positions else "patient_id"
    missing = [field for field in (key, "part") if field not in positions]
    if missing:
        raise DataError(_lacking(header, name))
    table = pd.DataFrame({key: texts[key], "part": _parts(texts["part"], name)})
    if key == "patient_id":
        table[key] = converted(table[key], parse_patient_id).astype("str")
    table = table[(table[key] != "") & (table["part"] != "")].drop_duplicates()
    if table.empty:
        raise DataError(f"{name} gives no {_noun(key)} a part. Fill in its columns.")
    _require_one_part_each(table, key, f"split.file {name}")
    note = (
        f"The table of split.file: its column {quoted(header[positions[key]])} is read as the "
        f"{_noun(key)}, and {quoted(header[positions['part']])} as the part."
    )
    return table, note


def _noun(key: str) -> str:
    return key.removesuffix("_id")


def _texts(content: bytes, name: str) -> tuple[pd.DataFrame, list[str]]:
    """Return one text column per field, empty where the table has none, and the header."""
    if not content.startswith(PARQUET_MAGIC):
        header = header_of(content[:HEAD_BYTES], COLUMNS)
        return read_columns(content, COLUMNS, (), name)[0], header
    try:
        table = pq.read_table(io.BytesIO(content)).to_pandas(ignore_metadata=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{name} begins as a Parquet file and cannot be read as one ({error}). Copy it again."
        ) from error
    header = [str(column) for column in table.columns]
    found = {
        field: table.iloc[:, position].astype("str").where(table.iloc[:, position].notna(), "")
        for field, position in match_columns(header, COLUMNS).items()
    }
    texts = pd.DataFrame({field: found.get(field, "") for field in COLUMNS}, index=table.index)
    return texts.astype("str").apply(lambda column: column.str.strip()), header


def _lacking(header: list[str], name: str) -> str:
    accepted = "; ".join(f"{_noun(field)}: {', '.join(each)}" for field, each in COLUMNS.items())
    found = ", ".join(map(quoted, header[:SHOWN_COLUMNS])) or "none"
    return (
        f"{name} needs a column of images or of patients, and one of parts. Accepted names (case, "
        f"spaces and underscores do not count): {accepted}. Columns found: {found}."
    )


def _parts(texts: pd.Series, name: str) -> pd.Series:
    """Return the part that each word means, empty where there is none."""
    words = {_plain(word): part for part, each in SPELLINGS.items() for word in each}
    words |= dict.fromkeys(NO_PART, "")
    parts = converted(texts, lambda text: words.get(_plain(text)))
    unknown = texts[parts.isna()]
    if len(unknown):
        shown = ", ".join(map(quoted, unknown.unique()[:SHOWN_WORDS]))
        accepted = "; ".join(" or ".join(each) for each in SPELLINGS.values())
        raise SplitError(
            f"split.file {name} has {len(unknown):,} rows with a part that is not known: {shown}. "
            f"Write {accepted}; a blank leaves the row out."
        )
    return parts.astype("str")


def _plain(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())


def _require_one_part_each(table: pd.DataFrame, key: str, what: str) -> None:
    """Refuse a name in two parts; the rows of a table that says so twice are dropped before."""
    twice = table[table[key].duplicated(keep=False)]
    if twice.empty:
        return
    name = twice[key].iloc[0]
    parts = " and ".join(sorted(twice.loc[twice[key] == name, "part"]))
    error = LeakageError if key == "patient_id" else SplitError
    raise error(
        f"{what} puts {twice[key].nunique():,} of its {_noun(key)}s in more than one part, for "
        f"example {quoted(name)} in {parts}. Give each one part."
    )


def parts_in_file(table: SplitTable, index: pd.DataFrame, location: str) -> pd.Series:
    """Return the part that the table gives each image, null where it gives none.

    Names of images are compared without the folders before them, and else by the rules of the
    metadata: without case, ending or leading zeros, where that leaves no doubt.

    Args:
        table: Of `split.file`.
        index: A row per image, with `image` and `patient_id`.
        location: Where the table lies, for an error.

    Raises:
        SplitError: It names none of the images, or gives one of them two parts.
    """
    rows = pd.read_parquet(table.path)
    key, explanation = str(rows.columns[0]), ""
    if key == "image":
        num_parts = int(index["image"].str.count("/").max()) + 1
        named = image_names(rows["image"], num_parts)
        if not named.isin(index["image"]).any():
            match = match_names(named.unique(), index["image"], num_parts, "split file")
            named = match.resolve(named)
            if match is AS_THEY_ARE:
                explanation = explain_mismatch(named, index["image"], num_parts, "split file")
            else:
                logger.warning("%s", match.note)
        rows = rows.assign(image=named).drop_duplicates()
        _require_one_part_each(rows, key, f"split.file {location}")
    parts = index[key].map(rows.set_index(key)["part"])
    if parts.isna().all():
        raise SplitError(
            f"split.file {location} names none of the {len(index):,} images: its first "
            f"{_noun(key)} is {quoted(rows[key].iloc[0])}, and one here is "
            f"{quoted(str(index[key].iloc[0]))}. {explanation}".rstrip()
        )
    return parts
