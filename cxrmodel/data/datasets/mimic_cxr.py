"""MIMIC-CXR-JPG: 377,110 images of 65,379 patients, whose tables are joined.

Source: Johnson et al., MIMIC-CXR-JPG, a large publicly available database of labeled chest
radiographs, arXiv:1901.07042, https://physionet.org/content/mimic-cxr-jpg/.

`mimic-cxr-2.x-metadata.csv.gz` has a row per image: `dicom_id`, `subject_id`, `study_id`,
`ViewPosition`, `StudyDate` and more. `-chexpert.csv.gz`, or else `-negbio.csv.gz`, has a row per
study with CheXpert's `observations`, found in the report by two different labellers;
`-split.csv.gz` has the official part of each image. Files are
`files/p10/p10000032/s50414267/<dicom_id>.jpg`; a `dicom_id` is unique, so copies in other folders
or formats are read as well.

Sex and age are not in these tables. Where MIMIC-IV's `patients.csv.gz` lies beside them, they are
taken from there: `anchor_age` is the age in `anchor_year`, on the same shifted calendar
(https://mimic.mit.edu/docs/iv/modules/hosp/patients/).
"""

from __future__ import annotations

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.data_set import (
    MAX_AGE_YEARS,
    DataSet,
    Entries,
    JoinedTable,
    converted,
    described,
    parse_part,
    parse_patient_id,
    parse_sex,
    parse_view,
)
from cxrmodel.data.datasets.observations import ABNORMAL, OBSERVATION_COLUMNS, read_observations

VIEW_CODES = {"postero-anterior": "PA", "antero-posterior": "AP"}
"""What `ViewCodeSequence_CodeMeaning` calls frontal views, where `ViewPosition` is blank."""

YEAR_CHARS = 4


def read_mimic_cxr(texts: pd.DataFrame, config: DataConfig) -> Entries:
    """Read the rows of the metadata, joined with labels, parts and patients."""
    labels, reasons, details = read_observations(texts, config)
    view = converted(texts["view"], parse_view).astype("str")
    coded = converted(texts["view_code"], _coded_view).astype("str")
    rows = described(
        texts["image"],
        patient_id=converted(texts["patient_id"], parse_patient_id),
        age=_ages(texts),
        sex=converted(texts["sex"], parse_sex),
        view=view.mask(texts["view"] == "", coded),
        official=converted(texts["part"], parse_part),
    )
    return Entries(pd.concat([rows, labels], axis=1), ABNORMAL, reasons, details)


def _coded_view(text: str) -> str | None:
    return VIEW_CODES.get(text.casefold()) or parse_view(text)


def _ages(texts: pd.DataFrame) -> pd.Series:
    year, anchor_age, anchor_year = (
        pd.to_numeric(column, errors="coerce")
        for column in (
            texts["study_date"].str[:YEAR_CHARS], texts["anchor_age"], texts["anchor_year"]
        )
    )  # fmt: skip
    age = anchor_age + year - anchor_year
    return age.where(age.between(0, MAX_AGE_YEARS)).round().astype("Int16")


MIMIC_CXR = DataSet(
    name="mimic-cxr",
    mined=True,
    title="MIMIC-CXR-JPG",
    url="https://physionet.org/content/mimic-cxr-jpg/",
    citation="A. E. W. Johnson et al., *MIMIC-CXR-JPG, a large publicly available database of "
    "labeled chest radiographs*, arXiv:1901.07042",
    tables=("mimic-cxr-*-metadata.csv",),
    names_suffice=False,
    columns={
        "image": ("dicom_id",),
        "patient_id": ("subject_id",),
        "study": ("study_id",),
        "view": ("ViewPosition",),
        "view_code": ("ViewCodeSequence_CodeMeaning",),
        "study_date": ("StudyDate",),
    },
    required=("image", "patient_id", "study", "study_date"),
    read=read_mimic_cxr,
    ending_counts=False,
    joined=(
        JoinedTable(
            tables=("mimic-cxr-*-chexpert.csv", "mimic-cxr-*-negbio.csv"),
            columns={"patient_id": ("subject_id",), "study": ("study_id",), **OBSERVATION_COLUMNS},
            on=("patient_id", "study"),
        ),
        JoinedTable(
            tables=("mimic-cxr-*-split.csv",),
            columns={"image": ("dicom_id",), "part": ("split",)},
            on=("image",),
            is_optional=True,
        ),
        JoinedTable(
            tables=("patients.csv",),
            columns={
                "patient_id": ("subject_id",),
                "sex": ("gender",),
                "anchor_age": ("anchor_age",),
                "anchor_year": ("anchor_year",),
            },
            on=("patient_id",),
            is_optional=True,
        ),
    ),
)
