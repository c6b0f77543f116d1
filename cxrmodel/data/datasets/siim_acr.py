"""SIIM-ACR Pneumothorax Segmentation: images of NIH ChestX-ray14 with masks of pneumothorax.

Source: Society for Imaging Informatics in Medicine, SIIM-ACR Pneumothorax Segmentation (2019),
https://www.kaggle.com/competitions/siim-acr-pneumothorax-segmentation.

`train-rle.csv` has a row per mask: `ImageId` and ` EncodedPixels` (with a blank before it), -1
where there is no pneumothorax; `SIIM_Pneumothorax_Dataset` of torchxrayvision (Cohen et al., MIDL
2022, https://github.com/mlmed/torchxrayvision) reads the same columns. The masks themselves are not
read. Files are DICOM in nested folders, named by the image; the patient is DICOM's tag.
"""

from __future__ import annotations

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.data_set import DataSet, Entries, described
from cxrmodel.data.label_columns import ANY_ABNORMAL, LABEL_DTYPE
from cxrmodel.data.ledger import Reason

PNEUMOTHORAX = "Pneumothorax"
NO_MASK = "-1"


def read_siim_acr(texts: pd.DataFrame, config: DataConfig) -> Entries:
    """Make one entry of the rows of each image, in the order of its first."""
    images = texts["image"]
    has_mask = (texts["mask"] != NO_MASK).groupby(images, sort=False).any()
    is_empty = (texts["mask"] == "").groupby(images, sort=False).any().reset_index(drop=True)
    label = has_mask.reset_index(drop=True).astype(LABEL_DTYPE)
    rows = described(pd.Series(has_mask.index, dtype="str")).assign(
        **{
            ANY_ABNORMAL: label.mask(label == 0),  # other diseases were not looked for
            PNEUMOTHORAX: label,
        }
    )
    usable = pd.Series("", index=label.index, dtype="str")
    reasons = usable.mask(is_empty, str(Reason.EMPTY_LABELS))
    return Entries(rows, (PNEUMOTHORAX,), reasons, usable)


SIIM_ACR = DataSet(
    name="siim-acr",
    title="SIIM-ACR Pneumothorax Segmentation",
    url="https://www.kaggle.com/competitions/siim-acr-pneumothorax-segmentation",
    citation="Society for Imaging Informatics in Medicine, *SIIM-ACR Pneumothorax Segmentation* "
    "(Kaggle, 2019)",
    tables=("train-rle.csv", "stage_2_train.csv"),
    names_suffice=False,
    columns={"image": ("ImageId",), "mask": ("EncodedPixels",)},
    required=("image", "mask"),
    read=read_siim_acr,
    ending_counts=False,
    images_of=("nih",),
)
