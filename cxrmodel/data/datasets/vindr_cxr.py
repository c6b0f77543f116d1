"""VinDr-CXR: 18,000 images of two hospitals in Vietnam, read by radiologists.

Source: Nguyen et al., VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations,
Scientific Data 9, 429 (2022), https://physionet.org/content/vindr-cxr/.

`image_labels_train.csv` has a row per image and reader (`image_id`, `rad_id` and 28 columns of 1
and 0): three readers for each of 15,000 images, of which `data.readers` makes one label. In
`image_labels_test.csv`, 3,000 images have the consensus of five, and no `rad_id`. The boxes of
`annotations_*.csv` are not read. Files are `train/<image_id>.dicom`; nothing says which images are
of one patient, so `data.patient_from` has to.
"""

from __future__ import annotations

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.data_set import DataSet, Entries, converted, described
from cxrmodel.data.label_columns import LABEL_DTYPE, any_abnormal
from cxrmodel.data.ledger import Reason

LABELS = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture",
    "Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity",
    "Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion",
    "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases",
)  # fmt: skip
"""All columns but `No finding`, in their order: local findings, then diagnoses."""

SPELLINGS = {"Other diseases": ("Other diseases", "Other disease")}  # of the two tables
VALUES = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "": 0}
UNKNOWN = -1


def read_vindr_cxr(texts: pd.DataFrame, config: DataConfig) -> Entries:
    """Make one entry of the rows of each image, in the order of its first."""
    marks = pd.DataFrame(
        {each: converted(texts[each], lambda text: VALUES.get(text, UNKNOWN)) for each in LABELS}
    ).astype("int8")
    names = texts["image"]
    is_odd = (marks == UNKNOWN).any(axis=1).groupby(names, sort=False).any()
    share = (marks == 1).groupby(names, sort=False).mean()
    hot = (share > 0) if config.readers == "any" else (share > 1 / 2)
    labels = hot.reset_index(drop=True).astype(LABEL_DTYPE)
    is_train = (texts["reader"] != "").groupby(names, sort=False).any().to_numpy()
    official = pd.Series(is_train).map({True: "train", False: "test"})
    rows = described(pd.Series(is_odd.index, dtype="str"), official=official)
    reasons = pd.Series("", index=labels.index, dtype="str")
    reasons[is_odd.to_numpy()] = str(Reason.UNKNOWN_LABEL)
    details = pd.Series("", index=labels.index, dtype="str")
    return Entries(
        pd.concat([rows, any_abnormal(labels), labels], axis=1), LABELS, reasons, details
    )


VINDR_CXR = DataSet(
    name="vindr-cxr",
    title="VinDr-CXR",
    url="https://physionet.org/content/vindr-cxr/",
    citation="H. Q. Nguyen et al., *VinDr-CXR: An open dataset of chest X-rays with radiologist's "
    "annotations*, Scientific Data 9, 429 (2022)",
    tables=("image_labels_train.csv", "image_labels_test.csv"),
    names_suffice=False,
    columns={
        "image": ("image_id",),
        "reader": ("rad_id",),
        **{each: SPELLINGS.get(each, (each,)) for each in LABELS},
    },
    required=("image", *LABELS),
    read=read_vindr_cxr,
    ending_counts=False,
)
