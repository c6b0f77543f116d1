"""NIH ChestX-ray14: 112,120 films of 30,805 patients, and a CSV in several shapes.

Source: Wang et al., ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on
Weakly-Supervised Classification and Localization of Common Thorax Diseases, CVPR 2017,
https://nihcc.app.box.com/v/ChestXray-NIHCC. Provided by the NIH Clinical Center.

Known variants: `Patient Gender` or `Patient Sex`; underscores for spaces; unquoted brackets that
split into more columns; a trailing comma; ages as `058Y`, or of 400 and more.
"""

from __future__ import annotations

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.entries import (
    DataSet,
    Entries,
    converted,
    parse_age,
    parse_follow_up,
    parse_patient_id,
    parse_sex,
    parse_view,
)
from cxrmodel.data.datasets.labels import label_matrix
from cxrmodel.data.datasets.pathologies import PATHOLOGIES


def read_nih(texts: pd.DataFrame, config: DataConfig) -> Entries:
    """Read the rows of `Data_Entry_2017`; its labels are names joined by `|`."""
    findings, reasons, details = label_matrix(texts["labels"])
    rows = pd.DataFrame(
        {
            "image": texts["image"],
            "patient_id": converted(texts["patient_id"], parse_patient_id).astype("str"),
            "age": converted(texts["age"], parse_age).astype("Int16"),
            "sex": converted(texts["sex"], parse_sex).astype("str"),
            "view": converted(texts["view"], parse_view).astype("str"),
            "follow_up": converted(texts["follow_up"], parse_follow_up).astype("Int32"),
            "official": pd.Series(None, index=texts.index, dtype="str"),
            "any_abnormal": findings.max(axis=1),
        }
    )
    hot = pd.DataFrame(findings, index=texts.index, columns=list(PATHOLOGIES))
    return Entries(pd.concat([rows, hot], axis=1), reasons, details)


NIH = DataSet(
    name="nih",
    title="NIH ChestX-ray14",
    url="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    citation="X. Wang et al., *ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on "
    "Weakly-Supervised Classification and Localization of Common Thorax Diseases*, IEEE CVPR 2017, "
    "pp. 3462-3471",
    tables=("Data_Entry*.csv",),
    names_suffice=True,
    columns={
        "image": ("Image Index",),
        "labels": ("Finding Labels", "Finding Label"),
        "patient_id": ("Patient ID",),
        "age": ("Patient Age",),
        "sex": ("Patient Gender", "Patient Sex"),
        "view": ("View Position",),
        "follow_up": ("Follow-up #",),
    },
    required=("image", "labels", "patient_id"),
    name_parts=1,
    read=read_nih,
)
