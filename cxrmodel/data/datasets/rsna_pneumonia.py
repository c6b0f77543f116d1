"""RSNA Pneumonia Detection Challenge: 26,684 images of NIH ChestX-ray14, read by radiologists.

Source: Shih et al., Augmenting the National Institutes of Health Chest Radiograph Dataset with
Expert Annotations of Possible Pneumonia, Radiology: Artificial Intelligence 1, e180041 (2019),
https://www.kaggle.com/competitions/rsna-pneumonia-detection-challenge.

`stage_2_train_labels.csv` has a row per box: `patientId` (which names an image, not a patient),
`x`, `y`, `width`, `height` and `Target`, evidence of pneumonia; an image without has one row. The
boxes are not read. `stage_2_detailed_class_info.csv` tells normal images from those with another
finding.

The tag PatientID repeats the name of the image, so several images of a patient of NIH look like
those of several patients. RSNA's `pneumonia-challenge-dataset-mappings_2018.json` gives NIH's name
of each image (`img_id`), which begins with the patient's number: put it beside the tables.
"""

from __future__ import annotations

import logging

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.data_set import (
    DataSet,
    Entries,
    JoinedTable,
    converted,
    described,
    parse_patient_id,
)
from cxrmodel.data.label_columns import ANY_ABNORMAL, LABEL_DTYPE
from cxrmodel.data.ledger import Reason

PNEUMONIA = "Pneumonia"
ABNORMAL = {"normal": 0, "no lung opacity / not normal": 1, "lung opacity": 1}
"""What the second table's classes say of `any_abnormal`."""

TARGETS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0}
WITHOUT_PATIENTS = (
    "RSNA's tables name no patient, and the DICOM tag is another one for each image, though "
    "several can be of one patient of NIH: train and test may share patients. Put RSNA's "
    "pneumonia-challenge-dataset-mappings_2018.json beside the tables."
)

logger = logging.getLogger(__name__)


def read_rsna(texts: pd.DataFrame, config: DataConfig) -> Entries:
    """Make one entry of the rows of each image, in the order of its first."""
    target = converted(texts["target"], TARGETS.get).astype(LABEL_DTYPE)
    first = texts.drop_duplicates("image").reset_index(drop=True)
    found = target.groupby(texts["image"], sort=False).max().reset_index(drop=True)
    known = converted(first["kind"], lambda text: ABNORMAL.get(text.casefold())).astype(LABEL_DTYPE)
    patients = converted(first["nih_image"], _nih_patient)
    rows = described(first["image"], patient_id=patients).assign(
        **{ANY_ABNORMAL: known.mask(found == 1, 1), PNEUMONIA: found}
    )
    usable = pd.Series("", index=first.index, dtype="str")
    reasons = usable.mask(found.isna(), str(Reason.UNKNOWN_LABEL))
    details = first["target"].where(found.isna(), "")
    if (first["nih_image"] == "").all():
        logger.warning("%s", WITHOUT_PATIENTS)
        return Entries(rows, (PNEUMONIA,), reasons, details, (WITHOUT_PATIENTS,))
    return Entries(rows, (PNEUMONIA,), reasons, details)


def _nih_patient(image: str) -> str:
    """Return the patient of NIH's `00010828_039.png`; empty where it is not known."""
    return parse_patient_id(image.partition("_")[0])


RSNA_PNEUMONIA = DataSet(
    name="rsna-pneumonia",
    title="RSNA Pneumonia Detection Challenge",
    url="https://www.kaggle.com/competitions/rsna-pneumonia-detection-challenge",
    citation="G. Shih et al., *Augmenting the National Institutes of Health Chest Radiograph "
    "Dataset with Expert Annotations of Possible Pneumonia*, Radiology: Artificial Intelligence 1, "
    "e180041 (2019)",
    tables=("stage_2_train_labels.csv",),
    names_suffice=False,
    columns={"image": ("patientId",), "target": ("Target",), "x": ("x",), "width": ("width",)},
    required=("image", "target", "x", "width"),
    read=read_rsna,
    ending_counts=False,
    images_of=("nih",),
    joined=(
        JoinedTable(
            tables=("stage_2_detailed_class_info.csv",),
            columns={"image": ("patientId",), "kind": ("class",)},
            on=("image",),
            is_optional=True,
        ),
        JoinedTable(
            tables=("pneumonia-challenge-dataset-mappings*.json",),
            columns={"image": ("subset_img_id",), "nih_image": ("img_id",)},
            on=("image",),
            is_optional=True,
        ),
    ),
)
