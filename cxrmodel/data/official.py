"""NIH's official split: two lists of file names beside the images."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from cxrmodel.data.name_rules import NameMatch
from cxrmodel.data.tables import TEST_LIST, TRAIN_VAL_LIST

logger = logging.getLogger(__name__)


def official_parts(images: pd.Series, directory: Path, match: NameMatch) -> pd.Series:
    """Return `train_val`, `test`, or null where neither or both official lists name the image.

    Args:
        images: Names of images.
        directory: Folder of the lists; either may be absent.
        match: Which image is meant where names differ in form.
    """
    named = {
        part: images.isin(match.resolve(_names_in(directory / name)))
        for part, name in (("train_val", TRAIN_VAL_LIST), ("test", TEST_LIST))
        if (directory / name).is_file()
    }
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
    return pd.Series(path.read_text("utf-8-sig", "replace").split(), dtype="str")
