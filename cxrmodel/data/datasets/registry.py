"""The data sets that this project understands, and the rows of their tables.

To add one, write its module, and name it in `DATASETS` and in `config.DatasetName`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.any_table import ANY_TABLE, list_images, read_any_table
from cxrmodel.data.datasets.brax import BRAX
from cxrmodel.data.datasets.chexpert import CHEXPERT
from cxrmodel.data.datasets.chexpert_plus import CHEXPERT_PLUS
from cxrmodel.data.datasets.data_set import DataSet, Entries, ImageSet, JoinedTable
from cxrmodel.data.datasets.delimited import HEAD_BYTES, header_of, match_columns, read_columns
from cxrmodel.data.datasets.mimic_cxr import MIMIC_CXR
from cxrmodel.data.datasets.nih import NIH
from cxrmodel.data.datasets.padchest import PADCHEST
from cxrmodel.data.datasets.rsna_pneumonia import RSNA_PNEUMONIA
from cxrmodel.data.datasets.siim_acr import SIIM_ACR
from cxrmodel.data.datasets.table_forms import as_csv
from cxrmodel.data.datasets.vindr_cxr import VINDR_CXR
from cxrmodel.errors import DataError

DATASETS: Mapping[str, DataSet] = {
    each.name: each
    for each in (
        NIH,
        CHEXPERT,
        MIMIC_CXR,
        PADCHEST,
        VINDR_CXR,
        RSNA_PNEUMONIA,
        SIIM_ACR,
        BRAX,
        CHEXPERT_PLUS,
    )
}
"""By their name in `data.dataset`, in the order in which they are looked for."""

AUTO = "auto"
BETWEEN = "+"  # the names of several data sets in one run

logger = logging.getLogger(__name__)


def candidates(choice: str) -> Sequence[DataSet]:
    """Return the data sets that a choice of `data.dataset` leaves open."""
    return tuple(DATASETS.values()) if choice == AUTO else (DATASETS[choice],)


def about(name: str) -> ImageSet:
    """Return what a report says of a data set, or of several as of `BETWEEN`."""
    known = {**DATASETS, ANY_TABLE.name: ANY_TABLE}
    sets = [known[each] for each in dict.fromkeys(name.split(BETWEEN))]
    if len(sets) == 1:
        return sets[0]
    return ImageSet(
        name=name,
        title=" and ".join([sets[0].title, *(each.title_within for each in sets[1:])]),
        url=" ".join(each.url for each in sets if each.url),
        citation="; ".join(each.citation for each in sets if each.citation),
    )


def data_set_of(choice: str, head: bytes, only_dicom: bool) -> DataSet:
    """Return the data set whose columns a table has, or has most of.

    Args:
        choice: `data.dataset`.
        head: The first bytes of the table.
        only_dicom: Every image is a DICOM file, whose tags may name the patient.
    """

    def num_matched(each: DataSet) -> float:
        required = each.required_of(only_dicom)
        found = match_columns(header_of(head, each.columns), each.columns)
        return sum(field in found for field in required) / len(required)

    return max(candidates(choice), key=num_matched)


def read_tables(
    config: DataConfig,
    contents: Sequence[bytes],
    names: Sequence[str],
    only_dicom: bool,
    uris: Sequence[str] = (),
) -> tuple[ImageSet, Entries]:
    """Read a data set's tables: its main ones one below the other, and others joined to them.

    Args:
        config: The choice of a data set, and how it is to be read.
        contents: The whole files.
        names: What to call each in an error or a log.
        only_dicom: Every image is a DICOM file.
        uris: Paths of the images.

    Raises:
        DataError: A table lacks a required column, says two things of one image, or is no table.
    """
    texts = [as_csv(content, name) for content, name in zip(contents, names, strict=True)]
    if config.dataset == ANY_TABLE.name:
        if not texts:
            return list_images(uris, config)
        return read_any_table(texts[0], names[0], config, uris)
    has_patients = only_dicom or bool(config.patient_from)
    data_set = data_set_of(config.dataset, texts[0][:HEAD_BYTES], has_patients)
    roles = [_joined_of(data_set, text) for text in texts]
    required = data_set.required_of(has_patients)
    main = [
        read_columns(text, data_set.columns, required, name)
        for name, text, role in zip(names, texts, roles, strict=True)
        if role is None
    ]
    rows = pd.concat([rows for rows, _ in main], ignore_index=True)
    notes = [note for _, interpreted in main for note in interpreted]
    for table in data_set.joined:
        at = roles.index(table) if table in roles else None
        if at is None:
            rows = _without_table(rows, table, data_set)
        else:
            rows, more = _with_table(rows, table, texts[at], names[at])
            notes += more
    entries = data_set.read(rows, config)
    return data_set, replace(entries, notes=(*notes, *entries.notes))


def _joined_of(data_set: DataSet, text: bytes) -> JoinedTable | None:
    """Return which joined table of a data set this is by its columns; None of a main one."""
    if data_set.matches(header_of(text[:HEAD_BYTES], data_set.columns), only_dicom=True):
        return None
    fitting = (x for x in data_set.joined if x.matches(header_of(text[:HEAD_BYTES], x.columns)))
    return next(fitting, None)


def _without_table(rows: pd.DataFrame, table: JoinedTable, data_set: DataSet) -> pd.DataFrame:
    """Return the rows with empty fields for a joined table that is not there."""
    if not table.is_optional:
        raise DataError(
            f"{data_set.title} needs a table {' or '.join(table.tables)} as well. Set data.csv to "
            "the folder that holds its tables, or put them below data.root."
        )
    fields = [field for field in table.columns if field not in table.on]
    return rows.assign(**dict.fromkeys(fields, "")).astype(dict.fromkeys(fields, "str"))


def _with_table(
    rows: pd.DataFrame, table: JoinedTable, text: bytes, name: str
) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows with the fields of a joined table, empty where it has no row for them."""
    fields = [field for field in table.columns if field not in table.on]
    more, notes = read_columns(text, table.columns, table.columns, name)
    if more.duplicated(list(table.on)).any():
        more = more.drop_duplicates()
    again = more.duplicated(list(table.on))
    if again.any():
        row = more[again].iloc[0]
        key = ", ".join(f"{table.columns[field][0]} {row[field]}" for field in table.on)
        raise DataError(
            f"{name} has several rows for {key}, and they differ. Keep the right one, or copy the "
            "table again."
        )
    merged = rows.merge(more, how="left", on=list(table.on), indicator=True)
    lonely = int((merged.pop("_merge") == "left_only").sum())
    if lonely:
        file = name.rsplit("/", 1)[-1]
        notes.append(f"{file} has no row for {lonely:,} of {len(rows):,} images.")
        logger.info("%s", notes[-1])
    return merged.astype(dict.fromkeys(fields, "str")).fillna(dict.fromkeys(fields, "")), notes
