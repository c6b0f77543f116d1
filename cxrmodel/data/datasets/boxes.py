"""The boxes that radiologists drew around findings, as NIH publishes them.

Source: `BBox_List_2017.csv` of ChestX-ray14, 984 boxes of eight pathologies on 880 images
(Wang et al., CVPR 2017), under a header that ends in `Bbox [x,y,w,h],,,`. The numbers are pixels of
NIH's PNGs of 1024 x 1024: copies of another size come with the same list.
"""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pandas as pd

from cxrmodel.data.datasets.delimited import (
    decode_table,
    header_of,
    match_columns,
    readable,
    separator_of,
)
from cxrmodel.data.datasets.labels import pathology_named
from cxrmodel.data.datasets.name_rules import AS_THEY_ARE, NameMatch, among, resolve_list

BOX_LIST = "BBox_List_2017.csv"
BOX_LISTS = (BOX_LIST, "BBox_List_2017_Official_NIH.csv")
"""Its names: the second is of the copies at 224 pixels, whose boxes are on the same grid."""
BOX_GRID_PX = 1024
"""Boxes are in pixels of NIH's own PNGs of this side, whatever the size of a copy."""

SIDES = ("x", "y", "width", "height")
AXES = (("x", "width"), ("y", "height"))
COLUMNS = {
    "image": ("Image Index",),
    "pathology": ("Finding Label", "Finding Labels"),
    "x": ("Bbox [x", "x"),
    "y": ("y", "Bbox y"),
    "width": ("w", "width", "Bbox w"),
    "height": ("h", "height", "Bbox h"),
}
BOX_COLUMNS = tuple(COLUMNS)
MAX_PX = 1 << 16
SHOWN_CHARS = 80
TOLERANCE_PX = 1  # of the sums of rounded numbers

ALIASES = {"infiltrate": "Infiltration"}
"""Names that only the box list uses."""

logger = logging.getLogger(__name__)


def read_boxes(path: Path, images: pd.Series, match: NameMatch = AS_THEY_ARE) -> pd.DataFrame:
    """Read the boxes of known images, in the order of the list.

    Rows of other images, of unknown pathologies or without a box are left out and counted in the
    log. Boxes that reach beyond the edge count only within it; the log names one.

    Args:
        path: The box list; it need not exist.
        images: Names of the images to keep boxes of.
        match: Which image is meant where names differ in form.

    Returns:
        Columns image, pathology (one of `PATHOLOGIES`), x, y, width and height (float32, from the
        file's top left corner, on a grid of `BOX_GRID_PX` along each of its sides); no rows where
        there is no list.

    Raises:
        DataError: The file is not a table.
    """
    rows = _read_rows(path) if path.is_file() else pd.DataFrame(columns=list(BOX_COLUMNS))
    boxes = pd.DataFrame(
        {
            "image": resolve_list(
                rows["image"].astype("str").str.strip().str.normalize("NFC"),
                images,
                match,
                "box list",
            ),
            "pathology": rows["pathology"].map(_pathology).astype("str"),
            **{side: _numbers(rows[side]) for side in SIDES},
        }
    )
    known, good = among(boxes["image"], images), _is_box(boxes)
    kept = known & good & (boxes[["x", "y"]] < BOX_GRID_PX).all(axis=1)
    if len(rows):
        logger.info(
            "%d boxes; left out are %d of images that are not in the index and %d rows without "
            "a known pathology or a box",
            kept.sum(),
            (~known & good).sum(),
            (~good).sum(),
        )
    _warn_of_no_boxes(path.name, rows[~good], len(rows))
    _warn_of_boxes_beyond(path.name, boxes[known & good])
    return boxes[kept].reset_index(drop=True).astype(dict.fromkeys(SIDES, "float32"))


def _read_rows(path: Path) -> pd.DataFrame:
    content = path.read_bytes()
    text = decode_table(content, path.name)
    header = header_of(content, COLUMNS)
    positions = match_columns(header, COLUMNS)
    has_header = not any(map(_pathology, header))
    if len(positions) < len(BOX_COLUMNS):
        positions = {column: position for position, column in enumerate(BOX_COLUMNS)}
        if text.strip():
            logger.warning(
                "The first line of %s does not name all of %s: its columns are read in this order",
                path.name,
                ", ".join(BOX_COLUMNS),
            )
    if not text.strip():
        return pd.DataFrame(columns=list(BOX_COLUMNS))
    with readable(path.name):
        fields = pd.read_csv(
            io.StringIO(text),
            sep=separator_of(text, COLUMNS),
            header=None,
            names=list(range(max(len(header), len(BOX_COLUMNS)))),
            usecols=sorted(positions.values()),  # also makes pandas tolerate surplus commas in rows
            index_col=False,
            dtype="str",
            na_filter=False,
        ).fillna("")
    rows = pd.DataFrame({column: fields[at] for column, at in positions.items()})
    return rows.iloc[int(has_header) :].reset_index(drop=True)


def _numbers(texts: pd.Series) -> pd.Series:
    """Return numbers, NaN where a text is not one; a decimal comma is read as a point."""
    return pd.to_numeric(texts.astype("str").str.replace(",", "."), errors="coerce")


def _pathology(text: str) -> str | None:
    return ALIASES.get(text.strip().casefold()) or pathology_named(text)


def _is_box(boxes: pd.DataFrame) -> pd.Series:
    box = boxes["pathology"].notna()
    for corner, side in AXES:
        box &= boxes[corner].between(0, MAX_PX) & boxes[side].between(0, MAX_PX, inclusive="right")
    return box


def _warn_of_no_boxes(name: str, rows: pd.DataFrame, num_rows: int) -> None:
    if len(rows):
        logger.warning(
            "%d of %d rows of %s are left out, since they name no known pathology or no box, for "
            "example %r",
            len(rows),
            num_rows,
            name,
            ", ".join(rows.iloc[0])[:SHOWN_CHARS],
        )


def _warn_of_boxes_beyond(name: str, boxes: pd.DataFrame) -> None:
    beyond = pd.Series(False, index=boxes.index)
    for corner, side in AXES:
        beyond |= boxes[corner] + boxes[side] > BOX_GRID_PX + TOLERANCE_PX
    if beyond.any():
        first = boxes[beyond].iloc[0]
        numbers = ", ".join(f"{first[side]:g}" for side in SIDES)
        logger.warning(
            "%d of %d boxes of %s reach beyond the edge, for example %s (%s), and count only "
            "within it: the numbers must be x, y, width and height in pixels of images of %d px",
            beyond.sum(),
            len(boxes),
            name,
            first["image"],
            numbers,
            BOX_GRID_PX,
        )
