"""Why an image is left out: a closed vocabulary, and the file beside every stage's result."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Self

import pandas as pd

from cxrmodel.storage.layout import EXCLUDED_FILE

NOTABLE_SHARE = 0.01

logger = logging.getLogger(__name__)


class Reason(StrEnum):
    """Why an image is not used.

    The reasons that lie in the image itself come last, in the order in which the pixel cache
    numbers them: append there, never insert.

    Attributes:
        meaning: One sentence for people.
        remedy: What to do about it; empty where a setting asked for the loss.
    """

    meaning: str
    remedy: str

    def __new__(cls, value: str, meaning: str = "", remedy: str = "") -> Self:
        """Make a member that equals its value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning, member.remedy = meaning, remedy
        return member

    IMAGE_MISSING = (
        "image_missing",
        "The CSV has a row for it, and no such file is there.",
        "Right where only a part of the data set is here; else set data.root to the folder above "
        "all images.",
    )
    ROW_MISSING = (
        "row_missing",
        "The file is there, and the CSV has no row for it.",
        "Right where the table covers a part of the images; else set data.csv to the table of all.",
    )
    DUPLICATE_ROW = (
        "duplicate_row",
        "An earlier row of the CSV names the same image.",
        "Keep one row per image in the table.",
    )
    DUPLICATE_FILE = (
        "duplicate_file",
        "Another file of the same name, in another folder or another Unicode form, is used.",
        "Set data.images to the folder that holds the images.",
    )
    BAD_IMAGE_NAME = (
        "bad_image_name",
        "The CSV's name for it cannot be that of a file.",
        "Write the names of the files into the table.",
    )
    BAD_PATIENT_ID = (
        "bad_patient_id",
        "Nothing says which patient it is of.",
        "Write the patient of each image into the table, or set data.patient_from: without it the "
        "same patient may be in train and in test.",
    )
    EMPTY_LABELS = (
        "empty_labels",
        "Its row has neither a pathology nor `No Finding`.",
        "Write `No Finding` where a radiologist found nothing.",
    )
    UNKNOWN_LABEL = (
        "unknown_label",
        "Its row has a label that the data set does not define.",
        "Spell the labels as the data set does: NIH's are names joined by `|`, CheXpert's are 1, "
        "0, -1 or blank.",
    )
    CONTRADICTORY_LABELS = (
        "contradictory_labels",
        "Its row has a pathology and `No Finding` at once.",
        "Correct these rows of the table.",
    )
    UNCERTAIN_LABEL = (
        "uncertain_label",
        "Its row leaves a finding uncertain, and data.uncertain is `exclude`.",
    )
    LATERAL_VIEW = (
        "lateral_view",
        "It is a lateral, oblique or decubitus view, and only other frontal images are used.",
        "Right where the data set has lateral views; else correct its view.",
    )
    NOT_SAMPLED = "not_sampled", "It is not in the drawn share of the data set, data.fraction."
    NOT_IN_OFFICIAL_LISTS = (
        "not_in_official_lists",
        "The data set puts it in none of its official parts, or in two.",
        "Use the lists of this data set, or set split.method to patient.",
    )
    NOT_IN_SPLIT_FILE = (
        "not_in_split_file",
        "The table of split.file gives it no part.",
        "Right where that table is meant to choose among the images; else add these to it.",
    )
    DAMAGED_IMAGE = (
        "damaged_image",
        "The file is cut short, its checksums do not match, or its header contradicts itself.",
        "Copy these files again from where they came.",
    )
    TOO_LARGE = (
        "too_large",
        "It has more pixels or bytes than images.max_megapixels allows.",
        "Set images.max_megapixels higher if they are meant to be so large.",
    )
    UNSUPPORTED_IMAGE = (
        "unsupported_image",
        "The file is not a PNG, a JPEG or a DICOM image that can be decoded here.",
        "Convert these files to PNG, or install the decoder that is named.",
    )
    UNREADABLE = (
        "unreadable",
        "The file is gone, of another size than when it was listed, comes damaged each time, or "
        "cannot be unpacked.",
        "Check the disk or the store, and run again.",
    )
    REPLACED = (
        "replaced",
        "The file was replaced after it was listed.",
        "Run again once nothing writes to the data set.",
    )
    LOW_CONTRAST = (
        "low_contrast",
        "It is of one grey, or nearly: it lies within a sixteenth of the grey levels.",
        "Look at these files in a viewer: where they show nothing there either, copy them again, "
        "or take them out of the table.",
    )


ASKED_FOR = frozenset({Reason.NOT_SAMPLED, Reason.UNCERTAIN_LABEL})
"""What a setting leaves out is not a loss."""


def ledger(
    images: Sequence[str] | pd.Series,
    reasons: Sequence[str] | pd.Series | Reason,
    details: Sequence[str] | pd.Series,
) -> pd.DataFrame:
    """Return ledger rows: text columns image, reason (one for all rows, or one per row), detail."""
    one_for_all = isinstance(reasons, Reason)
    columns = {
        "image": images,
        "reason": [str(reasons)] * len(images) if one_for_all else reasons,
        "detail": details,
    }
    texts = {name: pd.Series(each, dtype="str").array for name, each in columns.items()}
    return pd.DataFrame(texts)


def write_ledger(rows: pd.DataFrame, directory: Path) -> None:
    """Write a stage's ledger, empty or not, to its folder."""
    rows.to_parquet(directory / EXCLUDED_FILE, index=False, compression="zstd")


def count_reasons(rows: pd.DataFrame) -> dict[str, int]:
    """Return how many images each reason excludes, most frequent first."""
    counts = rows["reason"].value_counts()
    pairs = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
    return {str(reason): int(count) for reason, count in pairs}


def describe_counts(rows: pd.DataFrame) -> str:
    """Return the counts by reason as one line for an error or a log."""
    counts = count_reasons(rows)
    return (
        ", ".join(f"{reason} {count:,}" for reason, count in counts.items()) or "nothing excluded"
    )


def losses(excluded: pd.DataFrame, num_used: int) -> list[str]:
    """Return a sentence per reason that costs more than 1 % of the entries, the worst first.

    Args:
        excluded: Ledger rows with the columns image, reason and detail.
        num_used: Images that are left.
    """
    total = len(excluded) + num_used
    return [
        _loss(Reason(value), excluded[excluded["reason"] == value], total)
        for value, count in count_reasons(excluded).items()
        if count > NOTABLE_SHARE * total and value not in ASKED_FOR
    ]


def _loss(reason: Reason, rows: pd.DataFrame, total: int) -> str:
    image, detail = rows[["image", "detail"]].iloc[0]
    example = f"{image} ({detail})" if detail else str(image)
    share, verb = 100 * len(rows) / total, "is" if len(rows) == 1 else "are"
    return (
        f"{len(rows):,} of {total:,} entries ({share:.1f} %) {verb} left out as {reason}, for "
        f"example {example or 'a row without a name'}. {reason.meaning} {reason.remedy}"
    )


def warn_of_losses(excluded: pd.DataFrame, num_used: int) -> None:
    """Log what `losses` says."""
    for loss in losses(excluded, num_used):
        logger.warning("%s", loss)
