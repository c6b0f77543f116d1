"""PadChest: 160,868 images of 67,625 patients of a hospital in Spain, with 174 kinds of findings.

Source: Bustos et al., PadChest: A large chest x-ray image dataset with multi-label annotated
reports, Medical Image Analysis 66, 101797 (2020), https://bimcv.cipf.es/bimcv-projects/padchest/.

`PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz` has a row per image: `ImageID`,
`PatientID`, `PatientBirth` (a year), `StudyDate_DICOM`, `PatientSex_DICOM`, `Projection` and
`Labels`, the text of a list of terms. The labels here are terms of the paper's tree (its table 5)
that mean the same as a label of other data sets, with the terms below them (so a consolidation is
an infiltrate as well), masses outside the lungs left out; other terms count for `any_abnormal`
alone. The names follow `PC_Dataset` of torchxrayvision (Cohen et al., MIDL 2022,
https://github.com/mlmed/torchxrayvision), which maps terms by parts of words: here they are whole
terms, so that `subcutaneous emphysema` is not an emphysema of the lung. The columns, the
projections and the blanks around terms are as that reader has them.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.data_set import (
    LATERAL,
    MAX_AGE_YEARS,
    DataSet,
    Entries,
    converted,
    described,
    parse_patient_id,
    parse_sex,
    parse_view,
)
from cxrmodel.data.label_columns import ANY_ABNORMAL, LABEL_DTYPE
from cxrmodel.data.ledger import Reason

TERMS: Mapping[str, tuple[str, ...]] = {
    "Atelectasis": (
        "atelectasis", "laminar atelectasis", "lobar atelectasis", "segmental atelectasis",
        "total atelectasis", "round atelectasis", "atelectasis basal",
    ),
    "Bronchiectasis": ("bronchiectasis",),
    "Cardiomegaly": ("cardiomegaly",),
    "Consolidation": ("consolidation", "air bronchogram"),
    "Edema": ("pulmonary edema",),
    "Effusion": (
        "pleural effusion", "loculated pleural effusion", "loculated fissural effusion",
        "hydropneumothorax", "empyema", "hemothorax",
    ),
    "Emphysema": ("emphysema",),
    "Fibrosis": ("pulmonary fibrosis", "post radiotherapy changes", "asbestosis signs"),
    "Fracture": (
        "fracture", "rib fracture", "callus rib fracture", "clavicle fracture",
        "vertebral fracture", "humeral fracture",
    ),
    "Hernia": ("hiatal hernia",),
    "Infiltration": (
        "infiltrates", "interstitial pattern", "ground glass pattern", "alveolar pattern",
        "reticular interstitial pattern", "reticulonodular interstitial pattern",
        "miliary opacities", "consolidation", "air bronchogram",
    ),
    "Mass": ("mass", "pulmonary mass"),
    "Nodule": ("nodule", "multiple nodules"),
    "Pleural_Thickening": (
        "pleural thickening", "apical pleural thickening", "calcified pleural thickening",
    ),
    "Pneumonia": ("pneumonia", "atypical pneumonia"),
    "Pneumothorax": ("pneumothorax", "hydropneumothorax"),
    "Scoliosis": ("scoliosis",),
    "Tuberculosis": ("tuberculosis", "tuberculosis sequelae"),
}  # fmt: skip
"""The terms of each label."""

LABELS = tuple(TERMS)
NORMAL = "normal"
SAYS_NOTHING = frozenset({"unchanged", "exclude", "suboptimal study"})
DEVICES = (
    "catheter", "tube", "device", "pacemaker", "electrode", "prosthesis", "suture", "stent", "wire",
    "surgical staples", "metal", "osteosynthesis", "sternotomy", "mastectomy", "surgery",
    "artificial", "bone cement", "dai",
)  # fmt: skip
"""Words in terms of what was put into a patient, or done: they say nothing of disease."""

VIEWS = {"AP_horizontal": "AP", "COSTAL": LATERAL, "EXCLUDE": LATERAL}
"""Projections of this data set alone: lying on the back; of the ribs; of no use."""

YEAR_CHARS = 4


def read_padchest(texts: pd.DataFrame, config: DataConfig) -> Entries:
    """Read the rows of the table."""
    terms = {text: _terms(str(text)) for text in texts["labels"].unique()}
    is_empty = texts["labels"].map({text: not each for text, each in terms.items()}).astype(bool)
    labels = pd.DataFrame(
        {
            label: texts["labels"].map(
                {text: int(bool(each & set(own))) for text, each in terms.items()}
            )
            for label, own in TERMS.items()
        },
        index=texts.index,
    ).astype(LABEL_DTYPE)
    abnormal = texts["labels"].map({text: _abnormal(each) for text, each in terms.items()})
    rows = described(
        texts["image"],
        patient_id=converted(texts["patient_id"], parse_patient_id),
        age=_ages(texts),
        sex=converted(texts["sex"], parse_sex),
        view=converted(texts["view"], _view),
    ).assign(**{ANY_ABNORMAL: abnormal.astype(LABEL_DTYPE)})
    reasons = pd.Series("", index=texts.index, dtype="str").mask(is_empty, str(Reason.EMPTY_LABELS))
    details = texts["labels"].where(is_empty, "")
    return Entries(pd.concat([rows, labels], axis=1), LABELS, reasons, details)


def _terms(text: str) -> frozenset[str]:
    """Return the terms of the text of a list, such as `['normal', ' pleural effusion ']`."""
    parts = text.strip().strip("[]").replace('"', "'").split("',")
    terms = {" ".join(part.strip(" '").split()).casefold() for part in parts}
    return frozenset(terms - SAYS_NOTHING - {"", "nan"})


def _abnormal(terms: frozenset[str]) -> int | None:
    """Tell whether the terms name a disease or injury; None where they only name devices."""
    found = {each for each in terms - {NORMAL} if not any(word in each for word in DEVICES)}
    if found:
        return 1
    return 0 if NORMAL in terms else None


def _view(text: str) -> str | None:
    return VIEWS.get(text) or parse_view(text)


def _ages(texts: pd.DataFrame) -> pd.Series:
    """Return whole years from a year of birth and a date such as 20140915."""
    year, birth = (
        pd.to_numeric(column, errors="coerce")
        for column in (texts["study_date"].str[:YEAR_CHARS], texts["birth_year"])
    )
    age = year - birth
    return age.where(age.between(0, MAX_AGE_YEARS)).round().astype("Int16")


PADCHEST = DataSet(
    name="padchest",
    mined=True,
    title="PadChest",
    url="https://bimcv.cipf.es/bimcv-projects/padchest/",
    citation="A. Bustos et al., *PadChest: A large chest x-ray image dataset with multi-label "
    "annotated reports*, Medical Image Analysis 66, 101797 (2020)",
    tables=("PADCHEST_chest_x_ray_images_labels*.csv",),
    names_suffice=False,
    columns={
        "image": ("ImageID",),
        "patient_id": ("PatientID",),
        "birth_year": ("PatientBirth",),
        "study_date": ("StudyDate_DICOM",),
        "sex": ("PatientSex_DICOM",),
        "view": ("Projection",),
        "labels": ("Labels",),
    },
    required=("image", "patient_id", "labels", "study_date"),
    read=read_padchest,
)
