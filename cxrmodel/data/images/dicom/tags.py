"""What DICOM files say of themselves fills what a data set's table leaves open."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from cxrmodel.data.datasets.entries import (
    converted,
    parse_age,
    parse_patient_id,
    parse_sex,
    parse_view,
)
from cxrmodel.data.datasets.joins import exclude, exclude_people, is_dicom
from cxrmodel.data.files.root import Root
from cxrmodel.data.images.dicom.heads import read_headers
from cxrmodel.data.ledger import Reason

PARSERS: Mapping[str, Callable[[str], object]] = {
    "patient_id": parse_patient_id,
    "age": parse_age,
    "sex": parse_sex,
    "view": parse_view,
}


def with_tags(rows: pd.DataFrame, files: pd.DataFrame, root: str) -> pd.DataFrame:
    """Return the rows with a column pixel_spacing_mm, and what else the tags of their files say.

    Only files of usable rows are opened. The table wins over the tags. Rows that then still have
    no patient, or are found to be lateral views, are excluded; where a file could not be read,
    for the reason of that.

    Args:
        rows: As joined with the files.
        files: Listing by image name.
        root: Folder or URL of the data set.

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
        said = converted(tags[field], parse).astype(rows[field].dtype).reindex(rows.index)
        silent = tagged & (rows[field].isna() | (rows[field] == ""))
        rows[field] = rows[field].mask(silent, said)
    reasons = tags["reason"].reindex(rows.index, fill_value="")
    nobody = tagged & (rows["patient_id"] == "")
    for reason in Reason:
        details = tags["detail"].reindex(rows.index, fill_value="")
        exclude(rows, nobody & (reasons == str(reason)), reason, details)
    exclude_people(rows, tagged)
    return rows
