"""The boxes that radiologists drew around findings, as NIH publishes them.

Source: `BBox_List_2017.csv` of ChestX-ray14, 984 boxes of eight pathologies on 880 images
(Wang et al., CVPR 2017). Its header names four fields of six, `Bbox [x,y,w,h],,,`, so the fields
are read by position.
"""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

import pandas as pd

from cxrmodel.data.delimited import decode_table, separator_of
from cxrmodel.data.labels import pathology_named
from cxrmodel.errors import DataError

SIDES = ("x", "y", "width", "height")
HEADER = {"image": ("Image Index",), "pathology": ("Finding Label",)}
BOX_COLUMNS = ("image", "pathology", *SIDES)
MAX_SIDE_PX = 1 << 16

ALIASES = {"infiltrate": "Infiltration"}
"""Names that only the box list uses."""

logger = logging.getLogger(__name__)


def read_boxes(path: Path, images: pd.Series) -> pd.DataFrame:
    """Read the box list as far as it is of known images, in its order.

    Rows of other images, of unknown pathologies or without a box are left out and counted in
    the log.

    Args:
        path: The box list; it need not exist.
        images: Names of the images to keep boxes of.

    Returns:
        Columns image, pathology (one of `PATHOLOGIES`), x, y, width and height (float32, in pixels
        of the file as stored, from its top left corner); no rows where there is no list.

    Raises:
        DataError: The file is no table.
    """
    rows = _read_rows(path) if path.is_file() else pd.DataFrame(columns=list(BOX_COLUMNS))
    boxes = pd.DataFrame(
        {
            "image": rows["image"].astype("str").str.strip().str.normalize("NFC"),
            "pathology": rows["pathology"].map(_pathology).astype("str"),
            **{side: pd.to_numeric(rows[side], errors="coerce") for side in SIDES},
        }
    )
    known, good = boxes["image"].isin(images), _is_box(boxes)
    if len(rows):
        logger.info(
            "%d boxes; left out are %d of images that are not in the index and %d rows without "
            "a known pathology or a box",
            (known & good).sum(),
            (~known & good).sum(),
            (~good).sum(),
        )
    return boxes[known & good].reset_index(drop=True).astype(dict.fromkeys(SIDES, "float32"))


def _read_rows(path: Path) -> pd.DataFrame:
    text = decode_table(path.read_bytes(), path.name)
    try:
        return pd.read_csv(
            io.StringIO(text),
            sep=separator_of(text, HEADER),
            names=list(BOX_COLUMNS),
            usecols=range(len(BOX_COLUMNS)),  # also makes pandas tolerate surplus commas in rows
            index_col=False,
            skiprows=1,
            dtype="str",
            na_filter=False,
        ).fillna("")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as error:
        raise DataError(f"{path.name} cannot be read as a CSV: {error}") from error


def _pathology(text: str) -> str | None:
    return ALIASES.get(text.strip().casefold()) or pathology_named(text)


def _is_box(boxes: pd.DataFrame) -> pd.Series:
    box = boxes["pathology"].notna()
    for side in SIDES:
        box &= boxes[side].between(0, MAX_SIDE_PX)
    return box & (boxes["width"] > 0) & (boxes["height"] > 0)
