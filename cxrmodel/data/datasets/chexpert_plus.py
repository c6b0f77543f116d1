"""CheXpert Plus: CheXpert's images again, as PNG and DICOM, with reports and labels from these.

Source: Chambon et al., CheXpert Plus: Augmenting a Large Chest X-ray Dataset with Text Radiology
Reports, Patient Demographics and Additional Image Formats, arXiv:2405.19538,
https://aimi.stanford.edu/datasets/chexpert-plus.

`df_chexpert_plus_240401.csv` has a row per image (`path_to_image`, `frontal_lateral`, `ap_pa`,
`deid_patient_id`, `age`, `sex`, `split`). The `observations` are lines of JSON beside it, one per
image: `impression_fixed.json` from the report's impression, or else `report_fixed.json` from all of
it. `findings_fixed.json` is not read: few reports have that section, and an absent one is labelled
`No Finding`. The files are PNG or DICOM, whatever ending `path_to_image` has.
"""

from __future__ import annotations

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.chexpert import NAME_PARTS, known_of, paths_of
from cxrmodel.data.datasets.data_set import (
    DataSet,
    Entries,
    JoinedTable,
    converted,
    described,
    parse_part,
    parse_patient_id,
)
from cxrmodel.data.datasets.observations import ABNORMAL, OBSERVATION_COLUMNS, read_observations


def read_chexpert_plus(texts: pd.DataFrame, config: DataConfig) -> Entries:
    """Read the rows of the table, joined with the labels."""
    labels, reasons, details = read_observations(texts, config)
    parts = paths_of(texts["image"])
    rows = described(
        parts.str[-NAME_PARTS:].str.join("/"),
        patient_id=converted(texts["patient_id"], parse_patient_id),
        official=converted(texts["part"], parse_part),
        **known_of(texts, parts),
    )
    return Entries(pd.concat([rows, labels], axis=1), ABNORMAL, reasons, details)


CHEXPERT_PLUS = DataSet(
    name="chexpert-plus",
    mined=True,
    title="CheXpert Plus",
    url="https://aimi.stanford.edu/datasets/chexpert-plus",
    citation="P. Chambon et al., *CheXpert Plus: Augmenting a Large Chest X-ray Dataset with Text "
    "Radiology Reports, Patient Demographics and Additional Image Formats*, arXiv:2405.19538",
    tables=("df_chexpert_plus_*.csv",),
    names_suffice=False,
    columns={
        "image": ("path_to_image",),
        "patient_id": ("deid_patient_id",),
        "side": ("frontal_lateral",),
        "view": ("ap_pa",),
        "age": ("age",),
        "sex": ("sex",),
        "part": ("split",),
    },
    required=("image", "patient_id", "side"),
    name_parts=NAME_PARTS,
    read=read_chexpert_plus,
    ending_counts=False,
    images_of=("chexpert",),
    joined=(
        JoinedTable(
            tables=("impression_fixed.json", "report_fixed.json"),
            columns={"image": ("path_to_image",), **OBSERVATION_COLUMNS},
            on=("image",),
        ),
    ),
)
