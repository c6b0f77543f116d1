"""The 14 observations of CheXpert's labeller, which several data sets give as 1, 0, -1 or blank.

Source: Irvin et al., CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert
Comparison, AAAI 2019, table 1: 1 is positive, 0 negative, -1 uncertain, and a blank not mentioned
in the report. The labels are the twelve observations of disease or injury. `No Finding` is their
absence, and a tube or a wire (`Support Devices`) says nothing of disease, so neither is a label. A
blank is read as negative; `data.uncertain` says what -1 becomes.
"""

from __future__ import annotations

import operator
import re
from functools import reduce

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.data_set import converted
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
SHOWN_REASONS = (str(Reason.UNCERTAIN_LABEL), str(Reason.UNKNOWN_LABEL))
OBSERVATION_COLUMNS = {name: (name,) for name in OBSERVATIONS}
"""As `Columns`: every table spells them so."""


def read_observations(
    texts: pd.DataFrame, config: DataConfig
) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """Read the observations of many rows.

    Args:
        texts: A text column per observation.
        config: What -1 becomes.

    Returns:
        Int8 columns any_abnormal and `ABNORMAL`; and why rows cannot be used, with what was found,
        both empty where they can.
    """
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
    return pd.concat([any_abnormal(labels), labels], axis=1), reasons, details


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
    details = pd.Series("", index=texts.index, dtype="str")
    odd = odd[odd.any(axis=1)]
    shown = [(f"{x} " + texts[x][odd.index] + ", ").where(odd[x], "") for x in OBSERVATIONS]
    details[odd.index] = reduce(operator.add, shown).str.removesuffix(", ")
    return reasons, details
