"""NIH's official split: two lists of file names beside the images."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from cxrmodel.data.datasets.delimited import decode_table
from cxrmodel.data.datasets.name_rules import NameMatch, resolve_list

TRAIN_VAL_LIST = "train_val_list.txt"
TEST_LIST = "test_list.txt"

logger = logging.getLogger(__name__)


def official_parts(images: pd.Series, directory: Path, match: NameMatch) -> pd.Series:
    """Return `train_val`, `test`, or null where neither or both official lists name the image.

    Args:
        images: Names of images.
        directory: Folder of the lists; either may be absent.
        match: Which image is meant where names differ in form.

    Raises:
        DataError: A list is no text.
    """
    lists = {
        part: _names_in(directory / name)
        for part, name in (("train_val", TRAIN_VAL_LIST), ("test", TEST_LIST))
        if (directory / name).is_file()
    }
    listed = pd.concat(lists, names=["part"]) if lists else pd.Series(dtype="str")
    resolved = resolve_list(listed, images, match, "official lists")
    named = {part: images.isin(resolved.get(part, [])) for part in lists}
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
