"""What the heads of DICOM files tell of patients and films, for the index.

pydicom, which the optional extra `dicom` installs, is imported only where a DICOM file is met.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd

from cxrmodel.data.files.root import Root
from cxrmodel.errors import DataError, UnreadableFileError

TEXT_TAGS = {
    "patient_id": "PatientID",
    "age": "PatientAge",
    "sex": "PatientSex",
    "view": "ViewPosition",
}
SPACING_TAGS = ("PixelSpacing", "ImagerPixelSpacing")
HEAD_BYTES = (32 << 10, 512 << 10, 8 << 20)  # tried in turn, until these tags are passed
REMOTE_WORKERS = 16


def require_pydicom() -> None:
    """Raise a DataError that names the extra, where pydicom is not installed."""
    try:
        import pydicom  # noqa: F401, PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        raise DataError(
            "The data set holds DICOM files, which need pydicom: install the extra `dicom`, "
            "as in pip install 'cxrmodel[dicom]'."
        ) from error


def read_headers(root: Root, files: pd.DataFrame) -> pd.DataFrame:
    """Read what the index needs from the head of each DICOM file, and no other tag.

    A file whose head cannot be read has empty texts; decoding it will tell why.

    Args:
        root: Holds the files.
        files: Columns uri and bytes, a row a file.

    Returns:
        Rows and index as of `files`. Columns patient_id, age (as `058Y`), sex and view: text as
        in the tags PatientID, PatientAge, PatientSex and ViewPosition, empty where absent;
        pixel_spacing_mm: float32, between rows, of PixelSpacing or else ImagerPixelSpacing,
        NaN where absent.

    Raises:
        DataError: pydicom is not installed.
        OSError: The store cannot be reached.
    """
    require_pydicom()
    workers = (os.cpu_count() or 1) if root.is_local else REMOTE_WORKERS
    with ThreadPoolExecutor(workers, thread_name_prefix="dicom-head") as pool:
        rows = list(pool.map(partial(_header, root), files["uri"], files["bytes"]))
    headers = pd.DataFrame(rows, index=files.index, columns=[*TEXT_TAGS, "pixel_spacing_mm"])
    return headers.astype({**dict.fromkeys(TEXT_TAGS, "str"), "pixel_spacing_mm": np.float32})


def _header(root: Root, uri: str, num_bytes: int) -> tuple[str | float, ...]:
    """Return the texts of TEXT_TAGS and the pixel spacing of one file."""
    tags = _head_tags(root, uri, num_bytes)
    spacing = next((tags[tag] for tag in SPACING_TAGS if tags.get(tag)), "")
    return *(tags.get(tag, "") for tag in TEXT_TAGS.values()), _row_spacing(spacing)


def _head_tags(root: Root, uri: str, num_bytes: int) -> dict[str, str]:
    from cxrmodel.data.dicom.file import read_tags  # noqa: PLC0415 - an optional extra

    tags: dict[str, str] = {}
    for limit in HEAD_BYTES:
        try:
            head = root.read(uri, limit)
        except (FileNotFoundError, UnreadableFileError):
            return {}
        tags, is_whole = read_tags(head, [*TEXT_TAGS.values(), *SPACING_TAGS])
        if is_whole or limit >= num_bytes:
            break
    return tags


def _row_spacing(text: str) -> float:
    try:
        spacing = float(text.partition("\\")[0])
    except ValueError:
        return math.nan
    return spacing if 0 < spacing < math.inf else math.nan
