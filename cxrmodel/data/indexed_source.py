"""One data set joined with its files: what becomes of each row and of each image."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from cxrmodel.config import EACH_IMAGE, DataConfig
from cxrmodel.data.datasets.boxes import BOX_LIST, read_boxes
from cxrmodel.data.datasets.data_set import Entries, ImageSet
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
    among,
    explain_mismatch,
    match_names,
    match_without_endings,
    quoted,
)
from cxrmodel.data.datasets.nih import official_parts
from cxrmodel.data.datasets.pseudonyms import num_names_with_id, patient_salt, pseudonyms
from cxrmodel.data.datasets.registry import read_tables
from cxrmodel.data.files.root import Root, shown_root
from cxrmodel.data.label_columns import ANY_ABNORMAL, known_abnormal
from cxrmodel.data.ledger import Reason, describe_counts, losses
from cxrmodel.data.source import Source
from cxrmodel.errors import DataError
from cxrmodel.storage.layout import LISTING_FILE

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

EACH_IMAGE_NOTE = (
    "data.patient_from is `image`: each image counts as another patient's. Where a patient has "
    "several, train and test share patients, and every figure on test images is too good."
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexedSource:
    """One data set, joined with its files.

    Attributes:
        image_set: What it is.
        labels: Its label columns.
        notes: What had to be interpreted, one sentence each.
        index: `INDEX_COLUMNS` and the labels, a row per image in use.
        listing: `LISTING_COLUMNS`, likewise.
        boxes: As of `read_boxes`.
        excluded: Ledger rows.
    """

    image_set: ImageSet
    labels: tuple[str, ...]
    notes: list[str]
    index: pd.DataFrame
    listing: pd.DataFrame
    boxes: pd.DataFrame
    excluded: pd.DataFrame


def index_source(config: DataConfig, source: Source) -> IndexedSource:
    """Join a data set's tables with its files; the first reason that applies excludes a row.

    Args:
        config: Which data set it is, the share of it to draw, and the seed of the draw.
        source: Its snapshot.

    Raises:
        DataError: The table lacks a required column, nothing is usable, or files of one name clash.
    """
    listing = pd.read_parquet(source.directory / LISTING_FILE)
    only_dicom = bool(is_dicom(listing["uri"]).all())
    image_set, entries = read_tables(
        config, source.tables(), source.table_names, only_dicom, listing["uri"].tolist()
    )
    files, surplus = named_files(listing, image_set.name_parts)
    match = _match(entries, files, image_set)
    rows = join_rows(entries, files, image_set.name_parts, match, config)
    if len(surplus):
        refuse_clashes(listing, rows["image"], image_set.name_parts, Root(source.root))
    _draw_fraction(rows, config)
    rows = with_tags(rows, files, source.root, config).assign(source=source.name or image_set.name)
    excluded = ledger_of(rows, files, surplus)
    mismatch = _mismatch(rows, files, image_set.name_parts)
    usable = rows.loc[rows["reason"] == "", [*INDEX_COLUMNS, *entries.labels]]
    index = _index_frame(usable, config, source, match)
    if index.empty:
        raise DataError(
            f"Nothing of {shown_root(source.root)} is usable: {len(rows):,} rows in the table, "
            f"{len(files):,} image files; {describe_counts(excluded)}. "
            f"{mismatch or _cause(rows, files, excluded)}"
        )
    each_image = EACH_IMAGE_NOTE if config.patient_from == EACH_IMAGE else ""
    notes = [note for note in (match.note, mismatch, each_image) if note]
    for note in notes:
        logger.warning("%s", note)
    notes = [*entries.notes, *notes]
    boxes = read_boxes(source.directory / BOX_LIST, index["image"], match)
    listed = files.loc[index["image"], list(LISTING_COLUMNS)].reset_index(drop=True)
    return IndexedSource(image_set, entries.labels, notes, index, listed, boxes, excluded)


def _match(entries: Entries, files: pd.DataFrame, image_set: ImageSet) -> NameMatch:
    names = table_names(entries).unique()
    if not image_set.ending_counts:
        match = match_without_endings(names, files["image"], image_set.name_parts)
        if match.files:
            return match
    return match_names(names, files["image"], image_set.name_parts)


def _mismatch(rows: pd.DataFrame, files: pd.DataFrame, num_parts: int) -> str:
    """Say how names and files differ where some of either have no counterpart."""
    lonely = rows["reason"].isin((Reason.IMAGE_MISSING, Reason.BAD_IMAGE_NAME))
    if not lonely.any():
        return ""
    without_row = ~among(files["image"], rows["image"])
    return explain_mismatch(rows["image"][lonely], files["image"][without_row], num_parts)


def _cause(rows: pd.DataFrame, files: pd.DataFrame, excluded: pd.DataFrame) -> str:
    """Say why nothing is usable."""
    if rows.empty:
        return "The table has no row."
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
    rows: pd.DataFrame, config: DataConfig, source: Source, match: NameMatch
) -> pd.DataFrame:
    index = rows.reset_index(drop=True)
    listed = official_parts(index["image"], source.directory, match)
    index["official"] = index["official"].fillna(listed)
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
