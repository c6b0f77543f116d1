"""CheXpert: 224,316 images of 65,240 patients, with uncertain labels.

Source: Irvin et al., CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert
Comparison, AAAI 2019, https://stanfordmlgroup.github.io/competitions/chexpert/.

`train.csv` and `valid.csv` give each of 14 observations as 1 (positive), 0 (negative), -1
(uncertain) or blank (not mentioned in the report). Its labels are the twelve observations of
disease or injury. `No Finding` is their absence, and a tube or a wire (`Support Devices`) says
nothing of disease, so neither is a label. A blank is read as negative; `data.uncertain` says what
-1 becomes.
"""

from __future__ import annotations

import operator
import re
from functools import reduce

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.data_set import (
    LATERAL,
    DataSet,
    Entries,
    converted,
    parse_age,
    parse_sex,
    parse_view,
)
from cxrmodel.data.label_columns import LABEL_DTYPE, any_abnormal
from cxrmodel.data.ledger import Reason

ABNORMAL = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
)
"""The labels, in the order of the published table: observations of disease or injury."""

NO_FINDING = "No Finding"
SUPPORT_DEVICES = "Support Devices"
OBSERVATIONS = (*ABNORMAL, NO_FINDING, SUPPORT_DEVICES)

POSITIVE, NEGATIVE, UNCERTAIN, BLANK, UNKNOWN = 1, 0, -1, -2, -3
VALUES = {"1": POSITIVE, "0": NEGATIVE, "-1": UNCERTAIN, "": BLANK, "na": BLANK, "nan": BLANK}
OFFICIAL = {"train": "train_val", "valid": "test"}  # radiologists labelled `valid`
SHOWN_REASONS = (str(Reason.UNCERTAIN_LABEL), str(Reason.UNKNOWN_LABEL))

NAME_PARTS = 3
_PATIENT = re.compile(r"patient\d+")


def read_chexpert(texts: pd.DataFrame, config: DataConfig) -> Entries:
    """Read the rows of `train.csv` or `valid.csv`; `data.uncertain` says what -1 becomes."""
    values = pd.DataFrame(
        {name: converted(texts[name], _observed).astype("int8") for name in OBSERVATIONS}
    )
    reasons, details = _reasons(texts, values, config.uncertain)
    observed = values[list(ABNORMAL)]
    labels = (observed == POSITIVE).astype(LABEL_DTYPE)
    if config.uncertain == "positive":
        labels = labels.mask(observed == UNCERTAIN, 1)
    if config.uncertain == "unknown":
        labels = labels.mask(observed == UNCERTAIN)
    abnormal = any_abnormal(labels)
    rows = pd.concat([_described(texts), abnormal, labels], axis=1)
    return Entries(rows, ABNORMAL, reasons, details)


def _observed(text: str) -> int:
    return VALUES.get(re.sub(r"\.0*$", "", text.casefold()), UNKNOWN)


def _reasons(
    texts: pd.DataFrame, values: pd.DataFrame, uncertain: str
) -> tuple[pd.Series, pd.Series]:
    """Return why rows cannot be used, and what was found, both empty where they can."""
    abnormal = (values[list(ABNORMAL)] == POSITIVE).any(axis=1)
    doubtful = values[list(ABNORMAL)] == UNCERTAIN
    reasons = pd.Series("", index=texts.index, dtype="str")
    if uncertain == "exclude":
        reasons[doubtful.any(axis=1)] = str(Reason.UNCERTAIN_LABEL)
    reasons[abnormal & (values[NO_FINDING] == POSITIVE)] = str(Reason.CONTRADICTORY_LABELS)
    reasons[(values == BLANK).all(axis=1)] = str(Reason.EMPTY_LABELS)
    reasons[(values == UNKNOWN).any(axis=1)] = str(Reason.UNKNOWN_LABEL)
    odd = values.isin((UNCERTAIN, UNKNOWN)).mul(reasons.isin(SHOWN_REASONS), axis=0)
    shown = [(f"{name} " + texts[name] + ", ").where(odd[name], "") for name in OBSERVATIONS]
    return reasons, reduce(operator.add, shown).str.removesuffix(", ")


def _described(texts: pd.DataFrame) -> pd.DataFrame:
    parts = texts["image"].str.split(r"[/\\]", regex=True)  # a table from Windows may have either
    view = converted(texts["view"], parse_view).astype("str")
    return pd.DataFrame(
        {
            "image": parts.str[-NAME_PARTS:].str.join("/"),
            "patient_id": converted(_part(parts, -NAME_PARTS), _patient_id).astype("str"),
            "age": converted(texts["age"], parse_age).astype("Int16"),
            "sex": converted(texts["sex"], parse_sex).astype("str"),
            "view": view.mask(texts["side"].str.casefold() == LATERAL, LATERAL),
            "follow_up": pd.Series(None, index=texts.index, dtype="Int32"),
            "official": converted(
                _part(parts, -NAME_PARTS - 1), lambda part: OFFICIAL.get(part.casefold())
            ).astype("str"),
        }
    )


def _part(parts: pd.Series, position: int) -> pd.Series:
    return parts.str[position].astype("str").fillna("")


def _patient_id(text: str) -> str:
    text = text.casefold()
    return text if _PATIENT.fullmatch(text) else ""


CHEXPERT = DataSet(
    name="chexpert",
    title="CheXpert",
    url="https://stanfordmlgroup.github.io/competitions/chexpert/",
    citation="J. Irvin et al., *CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels "
    "and Expert Comparison*, AAAI 2019, pp. 590-597",
    tables=("train.csv", "valid.csv"),
    names_suffice=False,
    columns={
        "image": ("Path",),
        "sex": ("Sex",),
        "age": ("Age",),
        "side": ("Frontal/Lateral",),
        "view": ("AP/PA",),
        **{name: (name,) for name in OBSERVATIONS},
    },
    required=("image", *OBSERVATIONS),
    name_parts=NAME_PARTS,
    read=read_chexpert,
)
