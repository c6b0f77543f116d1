"""ChestX-ray14 as an index: a row an image, and a ledger of everything left out.

Source: Wang et al., ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on
Weakly-Supervised Classification and Localization of Common Thorax Diseases, CVPR 2017,
https://nihcc.app.box.com/v/ChestXray-NIHCC. Provided by the NIH Clinical Center.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from cxrmodel.config import DataConfig
from cxrmodel.data.entries import read_entries
from cxrmodel.data.labels import label_matrix
from cxrmodel.data.ledger import Reason, count_reasons, describe_counts, ledger, write_ledger
from cxrmodel.data.pathologies import PATHOLOGIES
from cxrmodel.data.source import Source
from cxrmodel.data.tables import ENTRIES_FILE, INDEX_FILE, LISTING_FILE, TEST_LIST, TRAIN_VAL_LIST
from cxrmodel.errors import DataError

__all__ = ["INDEX_COLUMNS", "INDEX_FILE", "PATHOLOGIES", "build_index"]

INDEX_COLUMNS = (
    "image",
    "uri",
    "patient_id",
    "age",
    "sex",
    "view",
    "follow_up",
    "official",
    "any_abnormal",
    *PATHOLOGIES,
)
LISTING_COLUMNS = ("image", "uri", "bytes", "version")
MAX_NAME_CHARS = 200

# A name is only ever compared with the listing, never used as a path; these say why it is odd.
_BAD_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffd/\\]|\.\.|^\.?$")

logger = logging.getLogger(__name__)


def build_index(config: DataConfig, source: Source, directory: Path) -> dict[str, Any]:
    """Write index.parquet, listing.parquet and excluded.parquet.

    Every row of the CSV ends in the index or in the ledger; so does every image file.

    Args:
        config: Share of the data set to draw, and the seed of the draw.
        source: Snapshot of the data set.
        directory: Folder to write to.

    Returns:
        num_images, num_excluded, excluded_by_reason, num_patients and the source's fingerprint.

    Raises:
        DataError: The CSV lacks a required column, or nothing is usable.
    """
    entries = read_entries(source.directory / ENTRIES_FILE, f"The CSV of {source.root}")
    files, surplus = _named_files(source.directory / LISTING_FILE)
    findings = _check_rows(entries, files)
    _draw_fraction(entries, findings.max(axis=1), config)
    usable = entries["reason"] == ""
    excluded = _ledger(entries[~usable], files, entries["image"], surplus)
    if not usable.any():
        raise DataError(
            f"Nothing of {source.root} is usable: {len(entries):,} rows in the CSV, {len(files):,} "
            f"image files; {describe_counts(excluded)}."
        )
    index = _index_frame(entries[usable], findings[usable.to_numpy()], files, source.directory)
    _write(index, files, excluded, directory)
    return {
        "num_images": len(index),
        "num_excluded": len(excluded),
        "excluded_by_reason": count_reasons(excluded),
        "num_patients": int(index["patient_id"].nunique()),
        "fingerprint": source.fingerprint,
    }


def _named_files(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the listing by file name, and ledger rows of files whose name is taken already."""
    listing = pd.read_parquet(path)
    listing["image"] = listing["uri"].str.rsplit("/", n=1).str[-1]
    again = listing["image"].duplicated()
    files = listing[~again].set_index("image", drop=False)
    repeated = listing[again]
    details = repeated["uri"] + " beside " + repeated["image"].map(files["uri"])
    return files, ledger(repeated["image"], Reason.DUPLICATE_FILE, details)


def _check_rows(entries: pd.DataFrame, files: pd.DataFrame) -> NDArray[np.uint8]:
    """Add the columns reason and detail to the entries; return the (N, 14) findings."""
    entries["reason"] = pd.Series("", index=entries.index, dtype="str")
    entries["detail"] = pd.Series("", index=entries.index, dtype="str")
    image = entries["image"]
    _exclude(entries, _is_bad_name(image), Reason.BAD_IMAGE_NAME)
    again = image.duplicated()
    rows = pd.Series(entries.index + 1, index=entries.index).astype("str")
    _exclude(entries, again, Reason.DUPLICATE_ROW, "row " + rows + " of the table")
    _exclude(entries, ~image.isin(files["image"]), Reason.IMAGE_MISSING)
    _exclude(entries, entries["patient_id"] == "", Reason.BAD_PATIENT_ID)
    findings, reasons, details = label_matrix(entries["labels"])
    for reason in (Reason.EMPTY_LABELS, Reason.UNKNOWN_LABEL, Reason.CONTRADICTORY_LABELS):
        _exclude(entries, reasons == reason, reason, details)
    return findings


def _is_bad_name(images: pd.Series) -> pd.Series:
    bad = [len(name) > MAX_NAME_CHARS or bool(_BAD_NAME.search(name)) for name in images]
    return pd.Series(bad, index=images.index, dtype="bool")


def _exclude(
    entries: pd.DataFrame, where: pd.Series, reason: Reason, details: pd.Series | None = None
) -> None:
    """Give a reason to rows that have none yet: the first that applies is the one recorded."""
    new = where & (entries["reason"] == "")
    entries.loc[new, "reason"] = str(reason)
    if details is not None:
        entries.loc[new, "detail"] = details[new]


def _draw_fraction(entries: pd.DataFrame, abnormal: NDArray[np.uint8], config: DataConfig) -> None:
    usable = np.flatnonzero(entries["reason"] == "")
    if config.fraction == 1 or len(usable) == 0:
        return
    strata = abnormal[usable]
    try:
        drawn, _ = train_test_split(
            usable, train_size=config.fraction, random_state=config.seed, stratify=strata
        )
    except ValueError as error:
        raise DataError(
            f"data.fraction = {config.fraction} of {len(usable):,} usable images, of which "
            f"{int(strata.sum()):,} are abnormal, cannot be drawn with both kinds on either side: "
            f"{error} Set another data.fraction, or 1."
        ) from error
    left_out = pd.Series(True, index=entries.index)
    left_out.iloc[drawn] = False
    _exclude(entries, left_out, Reason.NOT_SAMPLED)


def _ledger(
    rows: pd.DataFrame, files: pd.DataFrame, images: pd.Series, surplus: pd.DataFrame
) -> pd.DataFrame:
    without_row = files[~files["image"].isin(images)]
    parts = [
        ledger(rows["image"], rows["reason"], rows["detail"]),
        ledger(without_row["image"], Reason.ROW_MISSING, without_row["uri"]),
        surplus,
    ]
    rows = pd.concat(parts, ignore_index=True)
    odd = _is_bad_name(rows["image"])
    for column in ("image", "detail"):
        rows.loc[odd, column] = rows.loc[odd, column].map(_shown)
    return rows


def _shown(text: str) -> str:
    """Return untrusted text as printable characters, cut to a bearable length."""
    return text[:MAX_NAME_CHARS].encode("unicode_escape").decode()


def _index_frame(
    entries: pd.DataFrame, findings: NDArray[np.uint8], files: pd.DataFrame, directory: Path
) -> pd.DataFrame:
    index = entries.reset_index(drop=True)
    index["uri"] = index["image"].map(files["uri"])
    index["official"] = _official(index["image"], directory)
    index["any_abnormal"] = findings.max(axis=1)
    hot = pd.DataFrame(findings, columns=list(PATHOLOGIES))
    return pd.concat([index, hot], axis=1)[list(INDEX_COLUMNS)]


def _official(images: pd.Series, directory: Path) -> pd.Series:
    """Return `train_val`, `test`, or null where neither or both official lists name the image."""
    named = {
        part: images.isin((directory / name).read_text("utf-8-sig", "replace").split())
        for part, name in (("train_val", TRAIN_VAL_LIST), ("test", TEST_LIST))
        if (directory / name).is_file()
    }
    official = pd.Series(None, index=images.index, dtype="str")
    for part, member in named.items():
        official[member] = part
    if len(named) > 1:
        both = named["train_val"] & named["test"]
        official[both] = None
        if both.any():
            logger.warning("%d images are in both official lists, so in neither part", both.sum())
    return official


def _write(
    index: pd.DataFrame, files: pd.DataFrame, excluded: pd.DataFrame, directory: Path
) -> None:
    listing = files.loc[index["image"], list(LISTING_COLUMNS)]
    index.to_parquet(directory / INDEX_FILE, index=False, compression="zstd")
    listing.to_parquet(directory / LISTING_FILE, index=False, compression="zstd")
    write_ledger(excluded, directory)
