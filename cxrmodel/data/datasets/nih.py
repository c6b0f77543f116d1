"""NIH ChestX-ray14: 112,120 images of 30,805 patients, a CSV in several shapes, two official lists.

Source: Wang et al., ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on
Weakly-Supervised Classification and Localization of Common Thorax Diseases, CVPR 2017,
https://nihcc.app.box.com/v/ChestXray-NIHCC. Provided by the NIH Clinical Center.

Known variants: `Patient Gender` or `Patient Sex`; underscores for spaces; unquoted brackets that
split into more columns; a trailing comma; ages as `058Y`, or of 400 and more.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.data_set import (
    DataSet,
    Entries,
    converted,
    parse_age,
    parse_follow_up,
    parse_patient_id,
    parse_sex,
    parse_view,
)
from cxrmodel.data.datasets.delimited import decode_table
from cxrmodel.data.datasets.labels import PATHOLOGIES, label_matrix
from cxrmodel.data.datasets.name_rules import NameMatch, among, resolve_list
from cxrmodel.data.label_columns import LABEL_DTYPE

logger = logging.getLogger(__name__)


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
            "any_abnormal": pd.array(findings.max(axis=1), LABEL_DTYPE),
        }
    )
    hot = pd.DataFrame(findings, texts.index, list(PATHOLOGIES)).astype(LABEL_DTYPE)
    return Entries(pd.concat([rows, hot], axis=1), PATHOLOGIES, reasons, details)


NIH = DataSet(
    name="nih",
    mined=True,
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


TRAIN_VAL_LIST = "train_val_list.txt"
TEST_LIST = "test_list.txt"
TRAIN_VAL_LISTS = (TRAIN_VAL_LIST, "train_val_list_NIH.txt")
TEST_LISTS = (TEST_LIST, "test_list_NIH.txt")
"""Their names: the second is of the copies at 224 pixels."""


def official_parts(images: pd.Series, directory: Path, match: NameMatch) -> pd.Series:
    """Return `train_val`, `test`, or null where neither or both official lists name the image.

    Args:
        images: Names of images.
        directory: Folder of the lists; either may be absent.
        match: Which image is meant where names differ in form.

    Raises:
        DataError: A list is not a text file.
    """
    lists = {
        part: _names_in(directory / name)
        for part, name in (("train_val", TRAIN_VAL_LIST), ("test", TEST_LIST))
        if (directory / name).is_file()
    }
    listed = pd.concat(lists, names=["part"]) if lists else pd.Series(dtype="str")
    resolved = resolve_list(listed, images, match, "official lists")
    named = {part: among(images, resolved.get(part, pd.Series(dtype="str"))) for part in lists}
    official = pd.Series(None, index=images.index, dtype="str")
    for part, member in named.items():
        official[member] = part
    if len(named) > 1:
        both = named["train_val"] & named["test"]
        official[both] = None
        if both.any():
            logger.warning("%d images are in both official lists, so in neither part", both.sum())
    return official


def _names_in(path: Path) -> pd.Series:
    return pd.Series(decode_table(path.read_bytes(), path.name).split(), dtype="str")
