"""CheXpert: 224,316 images of 65,240 patients, with uncertain labels.

Source: Irvin et al., CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert
Comparison, AAAI 2019, https://stanfordmlgroup.github.io/competitions/chexpert/. The small copy has
the same tables; the test set came with CheXlocalize (Saporta et al., Nature Machine Intelligence
2022), whose `test_labels.csv` and `val_labels.csv` say nothing of sex, age and view.

`train.csv`, `valid.csv` and `test_labels.csv` give `observations`. A view that no column states is
that of the file's name, `view1_frontal.jpg`.
"""

from __future__ import annotations

import re

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.data_set import (
    LATERAL,
    DataSet,
    Entries,
    converted,
    described,
    parse_age,
    parse_part,
    parse_sex,
    parse_view,
)
from cxrmodel.data.datasets.observations import (
    ABNORMAL,
    OBSERVATION_COLUMNS,
    OBSERVATIONS,
    read_observations,
)

# Radiologists labelled `valid`, which stands for a test set where the real one is not there.
WITHOUT_TEST = {"train": "train_val", "val": "test"}

NAME_PARTS = 3
_PATIENT = re.compile(r"patient\d+")


def read_chexpert(texts: pd.DataFrame, config: DataConfig) -> Entries:
    """Read the rows of `train.csv`, `valid.csv` and `test_labels.csv`."""
    labels, reasons, details = read_observations(texts, config)
    parts = paths_of(texts["image"])
    official = converted(_part(parts, -NAME_PARTS - 1), parse_part).astype("str")
    if not (official == "test").any():
        official = official.map(WITHOUT_TEST).astype("str")
    rows = described(
        parts.str[-NAME_PARTS:].str.join("/"),
        patient_id=converted(_part(parts, -NAME_PARTS), _patient_id),
        official=official,
        **known_of(texts, parts),
    )
    return Entries(pd.concat([rows, labels], axis=1), ABNORMAL, reasons, details)


def paths_of(images: pd.Series) -> pd.Series:
    """Return the parts of each path; a table from Windows may separate them otherwise."""
    return images.str.split(r"[/\\]", regex=True)


def known_of(texts: pd.DataFrame, parts: pd.Series) -> dict[str, pd.Series]:
    """Return age, sex and view, from columns of these names and `side`."""
    view = converted(texts["view"], parse_view).astype("str")
    side = texts["side"].mask(texts["side"] == "", parts.str[-1].astype("str"))
    return {
        "age": converted(texts["age"], parse_age),
        "sex": converted(texts["sex"], parse_sex),
        "view": view.mask(side.str.casefold().str.contains(LATERAL, na=False), LATERAL),
    }


def _part(parts: pd.Series, position: int) -> pd.Series:
    return parts.str[position].astype("str").fillna("")


def _patient_id(text: str) -> str:
    text = text.casefold()
    return text if _PATIENT.fullmatch(text) else ""


CHEXPERT = DataSet(
    name="chexpert",
    mined=True,
    title="CheXpert",
    url="https://stanfordmlgroup.github.io/competitions/chexpert/",
    citation="J. Irvin et al., *CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels "
    "and Expert Comparison*, AAAI 2019, pp. 590-597",
    tables=("train.csv", "valid.csv", "test_labels.csv", "val_labels.csv"),
    names_suffice=False,
    columns={
        "image": ("Path",),
        "sex": ("Sex",),
        "age": ("Age",),
        "side": ("Frontal/Lateral",),
        "view": ("AP/PA",),
        **OBSERVATION_COLUMNS,
    },
    required=("image", *OBSERVATIONS),
    name_parts=NAME_PARTS,
    read=read_chexpert,
)
