"""A data set as an index: one row per image, and a ledger of everything left out."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.boxes import BOX_LIST, read_boxes
from cxrmodel.data.datasets.dicom_tags import with_tags
from cxrmodel.data.datasets.joins import (
    exclude,
    is_dicom,
    join_rows,
    ledger_of,
    named_files,
    refuse_clashes,
    table_names,
)
from cxrmodel.data.datasets.name_rules import (
    NameMatch,
    explain_mismatch,
    match_names,
    quoted,
)
from cxrmodel.data.datasets.nih import official_parts
from cxrmodel.data.datasets.pseudonyms import num_names_with_id, patient_salt, pseudonyms
from cxrmodel.data.datasets.registry import read_tables
from cxrmodel.data.files.root import Root
from cxrmodel.data.label_columns import ANY_ABNORMAL, known_abnormal, say_where_unknown
from cxrmodel.data.ledger import (
    Reason,
    count_reasons,
    describe_counts,
    losses,
    warn_of_losses,
    write_ledger,
)
from cxrmodel.data.source import Source
from cxrmodel.errors import DataError
from cxrmodel.storage.layout import BOXES_FILE, INDEX_FILE, LISTING_FILE, NOTES_FILE

INDEX_COLUMNS = (
    "image",
    "uri",
    "patient_id",
    "age",
    "sex",
    "view",
    "follow_up",
    "official",
    "pixel_spacing_mm",
    "source",
    ANY_ABNORMAL,
)
"""Followed by one column per label of the data set."""
LISTING_COLUMNS = ("image", "uri", "bytes", "version")

logger = logging.getLogger(__name__)


def build_index(config: DataConfig, source: Source, directory: Path) -> dict[str, Any]:
    """Write index.parquet, listing.parquet, boxes.parquet, notes.json and excluded.parquet.

    Every row of the CSV ends in the index or in the ledger; so does every image file.

    Args:
        config: Which data set it is, the share of it to draw, and the seed of the draw.
        source: Snapshot of the data set.
        directory: Folder to write to.

    Returns:
        dataset (a key of `DATASETS`), labels, num_images, num_excluded, excluded_by_reason,
        num_patients, num_boxes, notes (one sentence on each thing that had to be interpreted in
        the table) and the source's fingerprint.

    Raises:
        DataError: The CSV lacks a required column, nothing is usable, or files of one name clash.
    """
    joined = _join(config, source)
    index, excluded = joined.index, joined.excluded
    boxes = read_boxes(source.directory / BOX_LIST, index["image"], joined.match)
    warn_of_losses(excluded, len(index))
    say_where_unknown(index)
    _write(index, joined.files, boxes, directory)
    notes = json.dumps(joined.notes, indent=1) + "\n"
    (directory / NOTES_FILE).write_text(notes, encoding="utf-8")
    write_ledger(excluded, directory)
    return {
        "dataset": joined.data_set,
        "labels": list(joined.labels),
        "num_images": len(index),
        "num_excluded": len(excluded),
        "excluded_by_reason": count_reasons(excluded),
        "num_patients": int(index["patient_id"].nunique()),
        "num_boxes": len(boxes),
        "notes": joined.notes,
        "fingerprint": source.fingerprint,
    }


@dataclass(frozen=True)
class _Joined:
    data_set: str
    labels: tuple[str, ...]
    notes: list[str]
    index: pd.DataFrame
    files: pd.DataFrame
    excluded: pd.DataFrame
    match: NameMatch


def _join(config: DataConfig, source: Source) -> _Joined:
    """Join the tables with the files; the first reason that applies excludes a row."""
    listing = pd.read_parquet(source.directory / LISTING_FILE)
    data_set, entries = read_tables(
        config, source.tables(), source.table_names, bool(is_dicom(listing["uri"]).all())
    )
    files, surplus = named_files(listing, data_set.name_parts)
    match = match_names(table_names(entries).unique(), files["image"], data_set.name_parts)
    rows = join_rows(entries, files, data_set.name_parts, match)
    refuse_clashes(listing, rows["image"], data_set.name_parts, Root(source.root))
    _draw_fraction(rows, config)
    rows = with_tags(rows, files, source.root).assign(source=data_set.name)
    excluded = ledger_of(rows, files, surplus)
    mismatch = _mismatch(rows, files, data_set.name_parts)
    usable = rows.loc[rows["reason"] == "", [*INDEX_COLUMNS, *entries.labels]]
    index = _index_frame(usable, config, source.directory, match)
    if index.empty:
        raise DataError(
            f"Nothing of {source.root} is usable: {len(rows):,} rows in the CSV, {len(files):,} "
            f"image files; {describe_counts(excluded)}. {mismatch or _cause(rows, files, excluded)}"
        )
    notes = [note for note in (match.note, mismatch) if note]
    for note in notes:
        logger.warning("%s", note)
    notes = [*entries.notes, *notes]
    return _Joined(data_set.name, entries.labels, notes, index, files, excluded, match)


def _mismatch(rows: pd.DataFrame, files: pd.DataFrame, num_parts: int) -> str:
    """Say how names and files differ where some of either have no counterpart."""
    lonely = rows["reason"].isin((Reason.IMAGE_MISSING, Reason.BAD_IMAGE_NAME))
    return explain_mismatch(
        rows["image"][lonely], files["image"][~files["image"].isin(rows["image"])], num_parts
    )


def _cause(rows: pd.DataFrame, files: pd.DataFrame, excluded: pd.DataFrame) -> str:
    """Say why nothing is usable."""
    if rows.empty:
        return "The CSV has no row."
    if rows["uri"].notna().any():
        return losses(excluded, 0)[0]
    shown = quoted(rows["image"].iloc[0]), quoted(files["image"].iloc[0])
    return f"The first row names {shown[0]}, and the first file is {shown[1]}."


def _draw_fraction(rows: pd.DataFrame, config: DataConfig) -> None:
    usable = np.flatnonzero(rows["reason"] == "")
    if config.fraction == 1 or len(usable) == 0:
        return
    strata = known_abnormal(rows)[usable]
    try:
        drawn, _ = train_test_split(
            usable, train_size=config.fraction, random_state=config.seed, stratify=strata
        )
    except ValueError as error:
        raise DataError(
            f"data.fraction = {config.fraction} of {len(usable):,} usable images, of which "
            f"{int(strata.sum()):,} are abnormal, cannot be drawn so that images of both kinds are "
            "drawn and left. Set another data.fraction, or 1."
        ) from error
    left_out = pd.Series(True, index=rows.index)
    left_out.iloc[drawn] = False
    exclude(rows, left_out, Reason.NOT_SAMPLED)


def _index_frame(
    rows: pd.DataFrame, config: DataConfig, directory: Path, match: NameMatch
) -> pd.DataFrame:
    index = rows.reset_index(drop=True)
    index["official"] = index["official"].fillna(official_parts(index["image"], directory, match))
    salt = patient_salt(config)
    if salt is not None and len(index):
        _warn_of_ids_in_names(index)
        index["patient_id"] = pseudonyms(index["patient_id"], salt)
    return index


def _warn_of_ids_in_names(index: pd.DataFrame) -> None:
    count = num_names_with_id(index["image"], index["patient_id"])
    if count:
        logger.warning(
            "%d of %d file names hold their patient's id, which data.hash_patient_ids leaves as "
            "they are: give the files other names where the id must not leave",
            count,
            len(index),
        )


def _write(index: pd.DataFrame, files: pd.DataFrame, boxes: pd.DataFrame, directory: Path) -> None:
    listing = files.loc[index["image"], list(LISTING_COLUMNS)]
    for name, table in ((INDEX_FILE, index), (LISTING_FILE, listing), (BOXES_FILE, boxes)):
        table.to_parquet(directory / name, index=False, compression="zstd")
