"""The labels of an index: which there are, and what is known of them.

An index has one column per label, after `any_abnormal`: 1 (found), 0 (not found), or null where
nobody said. As numbers, an unknown label is NaN: what forgets about it fails or shows it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cxrmodel.errors import DataError

ANY_ABNORMAL = "any_abnormal"
"""The last column of an index before its labels: 1, 0, or null where nobody can know."""

LABEL_DTYPE: Final = "Int8"
MAX_LABEL_CHARS = 80
RESERVED = frozenset(
    {"image", "uri", "patient_id", "age", "sex", "view", "follow_up", "official",
     "pixel_spacing_mm", "source", ANY_ABNORMAL, "split", "reason", "detail", "status", "crc32"}
)  # fmt: skip
"""Columns that stand beside labels in some table."""


logger = logging.getLogger(__name__)


def label_names(index: Path) -> tuple[str, ...]:
    """Return the labels of an index, in its order; none where nothing is labelled.

    Args:
        index: `index.parquet`.
    """
    columns: list[str] = pq.read_schema(index).names
    return tuple(columns[columns.index(ANY_ABNORMAL) + 1 :])


def label_values(table: pd.DataFrame, names: Sequence[str]) -> NDArray[np.float64]:
    """Return label columns of a table as (N, K) numbers: 1, 0, or NaN where unknown."""
    return table[list(names)].to_numpy(dtype=np.float64, na_value=np.nan)


def any_abnormal(labels: pd.DataFrame) -> pd.Series:
    """Return the column `any_abnormal` of rows whose labels cover all that makes one abnormal.

    1 where any label is 1; null where none is and one is null, as there might be; else 0.

    Args:
        labels: (N, K), nullable.
    """
    highest: pd.Series = labels.max(axis=1).astype(LABEL_DTYPE)
    highest[labels.isna().any(axis=1) & (highest != 1)] = pd.NA
    return highest.rename(ANY_ABNORMAL)


def known_abnormal(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return (N,), whether an image is known to be abnormal: what draws and splits balance."""
    return (table[ANY_ABNORMAL] == 1).to_numpy(dtype=bool, na_value=False)


def say_where_unknown(index: pd.DataFrame) -> None:
    """Log for how many images nobody can know whether they are abnormal."""
    count = int(index[ANY_ABNORMAL].isna().sum())
    if count:
        logger.warning(
            "Of %d of %d images it is not known whether they are abnormal: a split or a draw does "
            "not balance these",
            count,
            len(index),
        )


def learnable(train_labels: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (K,), which labels have a positive and a negative image among (N, K) train labels."""
    return np.asarray((train_labels == 1).any(axis=0) & (train_labels == 0).any(axis=0))


def check_label_names(names: Sequence[str]) -> None:
    """Raise `DataError` where names cannot be the label columns of an index."""
    for number, name in enumerate(names):
        if name in names[:number]:
            raise DataError(f"Two labels are called {name!r}. Give each its own name.")
        if name in RESERVED or not name.strip() or not name.isprintable():
            raise DataError(f"A label cannot be called {name!r}. Give it another name.")
        if len(name) > MAX_LABEL_CHARS:
            raise DataError(
                f"The name of a label has {len(name)} characters, {name[:MAX_LABEL_CHARS]!r}..., "
                f"and may have {MAX_LABEL_CHARS}. Give it a shorter one."
            )
