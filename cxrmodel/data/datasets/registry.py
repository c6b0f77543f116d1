"""The data sets that this project understands; to add one, write its module and name it here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.chexpert import CHEXPERT
from cxrmodel.data.datasets.delimited import HEAD_BYTES, header_of, match_columns, read_columns
from cxrmodel.data.datasets.entries import DataSet, Entries
from cxrmodel.data.datasets.nih import NIH

DATASETS: Mapping[str, DataSet] = {each.name: each for each in (NIH, CHEXPERT)}
"""By their name in `data.dataset`."""

AUTO = "auto"


def candidates(choice: str) -> Sequence[DataSet]:
    """Return the data sets that a choice of `data.dataset` leaves open."""
    return tuple(DATASETS.values()) if choice == AUTO else (DATASETS[choice],)


def data_set_of(choice: str, head: bytes, only_dicom: bool) -> DataSet:
    """Return the data set that a table is of, or of several the one that it resembles most.

    Args:
        choice: `data.dataset`.
        head: The first bytes of the table, or all.
        only_dicom: Every image is a DICOM file, whose tags may say who it is of.
    """

    def num_matched(each: DataSet) -> float:
        required = each.required_of(only_dicom)
        found = match_columns(header_of(head, each.columns), each.columns)
        return sum(field in found for field in required) / len(required)

    return max(candidates(choice), key=num_matched)


def read_tables(
    config: DataConfig, contents: Sequence[bytes], names: Sequence[str], only_dicom: bool
) -> tuple[DataSet, Entries]:
    """Read a data set's tables, one below the other.

    Args:
        config: The choice of a data set, and how it is to be read.
        contents: The whole files.
        names: What to call each in an error or a log.
        only_dicom: Every image is a DICOM file.

    Raises:
        DataError: A table lacks a required column, or is none.
    """
    data_set = data_set_of(config.dataset, contents[0][:HEAD_BYTES], only_dicom)
    required = data_set.required_of(only_dicom)
    parts, notes = [], []
    for content, name in zip(contents, names, strict=True):
        rows, interpreted = read_columns(content, data_set.columns, required, name)
        parts.append(rows)
        notes += interpreted
    entries = data_set.read(pd.concat(parts, ignore_index=True), config)
    return data_set, replace(entries, notes=tuple(notes))
