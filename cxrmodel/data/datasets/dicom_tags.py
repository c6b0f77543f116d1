"""Tags of DICOM files for the index: patient, age, sex, view and pixel spacing.

They fill what a data set's table leaves open. pydicom, which the optional extra `dicom` installs,
is imported only where a DICOM file is met.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.data_set import (
    VIEW_TAGS,
    converted,
    parse_age,
    parse_patient_id,
    parse_sex,
    parse_view,
    stated_view,
)
from cxrmodel.data.datasets.joins import exclude, exclude_people, is_dicom
from cxrmodel.data.files.root import Root
from cxrmodel.data.images.formats import require_pydicom
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import ImageError
from cxrmodel.machine import usable_cores

TEXT_TAGS = {"patient_id": "PatientID", "age": "PatientAge", "sex": "PatientSex"}
SPACING_TAGS = ("PixelSpacing", "ImagerPixelSpacing")
COLUMNS = (*TEXT_TAGS, "view", "pixel_spacing_mm", "reason", "detail")
HEAD_BYTES = (32 << 10, 512 << 10, 8 << 20)  # tried in turn, until these tags are passed
REMOTE_WORKERS = 16
PARSERS: Mapping[str, Callable[[str], object]] = {
    "patient_id": parse_patient_id,
    "age": parse_age,
    "sex": parse_sex,
    "view": parse_view,
}


def with_tags(
    rows: pd.DataFrame,
    files: pd.DataFrame,
    root: str,
    config: DataConfig = DataConfig(),  # noqa: B008 - it is frozen
) -> pd.DataFrame:
    """Return the rows with a column pixel_spacing_mm, and gaps filled from their files' tags.

    Only the files of usable rows are opened. The table wins over the tags. Rows that still have no
    patient after that, or turn out to be lateral views, are excluded; where a file could not be
    read, the reason says so.

    Args:
        rows: As joined with the files.
        files: Listing by image name.
        root: Folder or URL of the data set.
        config: Which views to use.

    Raises:
        DataError: There are DICOM files, and pydicom is not installed.
        OSError: The store cannot be reached; worth another try.
    """
    rows = rows.assign(pixel_spacing_mm=pd.array([None] * len(rows), dtype="Float32"))
    tagged = (rows["reason"] == "") & is_dicom(rows["uri"])
    if not tagged.any():
        return rows
    tags = read_headers(Root(root), files.loc[rows.loc[tagged, "image"]])
    tags = tags.set_axis(rows.index[tagged])
    rows.loc[tagged, "pixel_spacing_mm"] = tags["pixel_spacing_mm"]
    for field, parse in PARSERS.items():
        stated = converted(tags[field], parse).astype(rows[field].dtype).reindex(rows.index)
        is_open = tagged & (rows[field].isna() | (rows[field] == ""))
        rows[field] = rows[field].mask(is_open, stated)
    reasons = tags["reason"].reindex(rows.index, fill_value="")
    is_unknown = tagged & (rows["patient_id"] == "")
    for reason in Reason:
        details = tags["detail"].reindex(rows.index, fill_value="")
        exclude(rows, is_unknown & (reasons == str(reason)), reason, details)
    exclude_people(rows, tagged, config.views)
    return rows


def read_headers(root: Root, files: pd.DataFrame) -> pd.DataFrame:
    """Read what the index needs from the head of each DICOM file, and no other tag.

    A file whose head cannot be read has empty texts, and a reason.

    Args:
        root: Holds the files.
        files: Columns uri and bytes, a row per file.

    Returns:
        Rows and index as of `files`. Columns patient_id, age (as `058Y`) and sex: text as in the
        tags PatientID, PatientAge and PatientSex, empty where absent; view: `AP`, `PA`, `lateral`
        or empty, of the first of VIEW_TAGS that says so; pixel_spacing_mm: float32, between rows,
        of PixelSpacing or else ImagerPixelSpacing, NaN where absent; reason and detail: for the
        ledger, why nothing could be read, empty where it could.

    Raises:
        DataError: pydicom is not installed.
        OSError: The store cannot be reached.
    """
    require_pydicom()
    workers = usable_cores() if root.is_local else REMOTE_WORKERS
    with ThreadPoolExecutor(workers, thread_name_prefix="dicom-head") as pool:
        rows = list(pool.map(partial(_header, root), files["uri"], files["bytes"]))
    headers = pd.DataFrame(rows, index=files.index, columns=list(COLUMNS))
    texts = [column for column in COLUMNS if column != "pixel_spacing_mm"]
    return headers.astype({**dict.fromkeys(texts, "str"), "pixel_spacing_mm": np.float32})


def _header(root: Root, uri: str, num_bytes: int) -> tuple[str | float, ...]:
    """Return the values of COLUMNS of one file."""
    try:
        tags, reason, detail = _head_tags(root, uri, num_bytes), "", ""
    except ImageError as error:
        tags, reason, detail = {}, str(error.reason), error.detail
    texts = [tags.get(tag, "") for tag in TEXT_TAGS.values()]
    spacing = next((tags[tag] for tag in SPACING_TAGS if tags.get(tag)), "")
    return *texts, stated_view(tags), _row_spacing(spacing), reason, detail


def _head_tags(root: Root, uri: str, num_bytes: int) -> dict[str, str]:
    from cxrmodel.data.images.dicom.tags import read_tags  # noqa: PLC0415 - an optional extra

    tags: dict[str, str] = {}
    is_whole, limit = False, 0
    for limit in HEAD_BYTES:
        is_last = limit >= min(num_bytes, HEAD_BYTES[-1])
        head = root.read_image(uri, limit)
        try:
            tags, is_whole = read_tags(head, [*TEXT_TAGS.values(), *VIEW_TAGS, *SPACING_TAGS])
        except ImageError:
            if is_last:
                raise
            continue
        if is_whole or is_last:
            break
    if not is_whole and num_bytes <= limit and not tags.get(TEXT_TAGS["patient_id"]):
        raise ImageError(Reason.DAMAGED_IMAGE, "it ends before its tags say whose image it is")
    return tags


def _row_spacing(text: str) -> float:
    try:
        spacing = float(text.partition("\\")[0])
    except ValueError:
        return math.nan
    return spacing if 0 < spacing < math.inf else math.nan
