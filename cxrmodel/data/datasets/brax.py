"""BRAX: 40,967 images of 18,442 patients of a hospital in Brazil, with CheXpert's observations.

Source: Reis et al., BRAX, Brazilian labeled chest x-ray dataset, Scientific Data 9, 487 (2022),
https://physionet.org/content/brax/.

`master_spreadsheet_update.csv` has a row per image: `DicomPath`, `PngPath`, `PatientID`,
`PatientSex`, `PatientAge`, CheXpert's `observations` and `ViewPosition` (PA, AP, L, RLO, LLD, AP
LLD). The PNGs are read, `images/id_<patient>/Study_<uid>/Series_<uid>/image-<uid>.png`; the same
images as DICOM, where they are there too, are in the ledger.
"""

from __future__ import annotations

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.chexpert import paths_of
from cxrmodel.data.datasets.data_set import (
    DataSet,
    Entries,
    converted,
    described,
    parse_age,
    parse_patient_id,
    parse_sex,
    parse_view,
)
from cxrmodel.data.datasets.observations import (
    ABNORMAL,
    OBSERVATION_COLUMNS,
    OBSERVATIONS,
    read_observations,
)

NAME_PARTS = 4


def read_brax(texts: pd.DataFrame, config: DataConfig) -> Entries:
    """Read the rows of the master spreadsheet."""
    labels, reasons, details = read_observations(texts, config)
    rows = described(
        paths_of(texts["image"]).str[-NAME_PARTS:].str.join("/"),
        patient_id=converted(texts["patient_id"], parse_patient_id),
        age=converted(texts["age"], parse_age),
        sex=converted(texts["sex"], parse_sex),
        view=converted(texts["view"], parse_view),
    )
    return Entries(pd.concat([rows, labels], axis=1), ABNORMAL, reasons, details)


BRAX = DataSet(
    name="brax",
    mined=True,
    title="BRAX",
    url="https://physionet.org/content/brax/",
    citation="E. P. Reis et al., *BRAX, Brazilian labeled chest x-ray dataset*, Scientific Data 9, "
    "487 (2022)",
    tables=("master_spreadsheet_update.csv", "master_spreadsheet.csv"),
    names_suffice=False,
    columns={
        "image": ("PngPath",),
        "patient_id": ("PatientID",),
        "sex": ("PatientSex",),
        "age": ("PatientAge",),
        "view": ("ViewPosition",),
        **OBSERVATION_COLUMNS,
    },
    required=("image", "patient_id", *OBSERVATIONS),
    name_parts=NAME_PARTS,
    read=read_brax,
)
