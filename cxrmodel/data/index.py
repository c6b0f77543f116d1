"""The index: one row per image of all data sets of a run, and a ledger of everything left out."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.registry import BETWEEN, DATASETS
from cxrmodel.data.datasets.shared_names import shared_names
from cxrmodel.data.indexed_source import INDEX_COLUMNS, IndexedSource, index_source
from cxrmodel.data.label_columns import LABEL_DTYPE, say_where_unknown
from cxrmodel.data.ledger import count_reasons, warn_of_losses, write_ledger
from cxrmodel.data.source import Source
from cxrmodel.storage.layout import BOXES_FILE, INDEX_FILE, LISTING_FILE, NOTES_FILE

logger = logging.getLogger(__name__)


def build_index(config: DataConfig, source: Source, directory: Path) -> dict[str, Any]:
    """Write index.parquet, listing.parquet, boxes.parquet, notes.json and excluded.parquet.

    Every row of a table ends in the index or in the ledger; so does every image file. With several
    data sets, names of images and ids of patients begin with the name of theirs.

    Args:
        config: Which data sets there are, the share of them to draw, and the seed of the draw.
        source: Snapshot of the data set, or of several.
        directory: Folder to write to.

    Returns:
        dataset (a key of `DATASETS`, or several joined by `BETWEEN`), labels, num_images,
        num_excluded, excluded_by_reason, num_patients, num_boxes, notes (one sentence on each thing
        that had to be interpreted in the tables) and the source's fingerprint.

    Raises:
        DataError: A table lacks a required column, nothing is usable, or files of one name clash.
    """
    indexed = _mixed(config, source) if source.parts else index_source(config, source)
    index, excluded = indexed.index, indexed.excluded
    warn_of_losses(excluded, len(index))
    say_where_unknown(index)
    tables = {INDEX_FILE: index, LISTING_FILE: indexed.listing, BOXES_FILE: indexed.boxes}
    for name, table in tables.items():
        table.to_parquet(directory / name, index=False, compression="zstd")
    notes = json.dumps(indexed.notes, indent=1) + "\n"
    (directory / NOTES_FILE).write_text(notes, encoding="utf-8")
    write_ledger(excluded, directory)
    return {
        "dataset": indexed.image_set.name,
        "labels": list(indexed.labels),
        "num_images": len(index),
        "num_excluded": len(excluded),
        "excluded_by_reason": count_reasons(excluded),
        "num_patients": int(index["patient_id"].nunique()),
        "num_boxes": len(indexed.boxes),
        "notes": indexed.notes,
        "fingerprint": source.fingerprint,
    }


def _mixed(config: DataConfig, source: Source) -> IndexedSource:
    """Index several data sets and put them one below the other."""
    names = [part.name for part in source.parts]
    settings = config.of_sources()
    parts = [index_source(one, part) for one, part in zip(settings, source.parts, strict=True)]
    common = shared_names([part.labels for part in parts])
    labels = tuple(dict.fromkeys(common[name] for part in parts for name in part.labels))
    indexes = [
        _with_labels(_named(part.index, name), part.labels, common, labels)
        for name, part in zip(names, parts, strict=True)
    ]
    overlaps = [
        *_shared_ids([part.index["patient_id"] for part in parts]),
        *_overlaps([part.image_set.name for part in parts]),
    ]
    for note in overlaps:
        logger.warning("%s", note)
    notes = [f"{name}: {x}" for name, part in zip(names, parts, strict=True) for x in part.notes]

    def together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
        return pd.concat(tables, ignore_index=True)

    return IndexedSource(
        image_set=replace(
            parts[0].image_set, name=BETWEEN.join(part.image_set.name for part in parts)
        ),
        labels=labels,
        notes=[*notes, *overlaps],
        index=together(indexes),
        listing=together([_named(p.listing, n) for n, p in zip(names, parts, strict=True)]),
        boxes=together([_named(p.boxes, n) for n, p in zip(names, parts, strict=True)]),
        excluded=together([_named(p.excluded, n) for n, p in zip(names, parts, strict=True)]),
    )


def _named(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return a table whose images, paths and patients begin with the name of their data set."""
    between = {"image": "/", "uri": "/", "patient_id": ":"}
    return table.assign(
        **{
            x: (f"{source}{mark}" + table[x]).astype("str")
            for x, mark in between.items()
            if x in table
        }
    )


def _with_labels(
    index: pd.DataFrame, own: Sequence[str], common: dict[str, str], labels: Sequence[str]
) -> pd.DataFrame:
    """Return an index with all labels of the mix; those that its data set lacks are null."""
    columns = {}
    for label in labels:
        same = [name for name in own if common[name] == label]
        empty = pd.Series(None, index=index.index, dtype=LABEL_DTYPE)
        columns[label] = index[same].max(axis=1).astype(LABEL_DTYPE) if same else empty
    return pd.concat([index[list(INDEX_COLUMNS)], pd.DataFrame(columns, index.index)], axis=1)


def _shared_ids(patients: Sequence[pd.Series]) -> list[str]:
    """Say how many patient ids occur in several data sets of the mix."""
    ids = pd.Series([each for own in patients for each in own.unique()], dtype="str")
    count = int(ids[ids.duplicated()].nunique())
    if not count:
        return []
    return [
        f"{count:,} patient ids occur in more than one of the data sets and count as those of "
        "different patients. Where they are the same people, these may be in train and in test: "
        "put the images below one root, with one table."
    ]


def _overlaps(names: Sequence[str]) -> list[str]:
    """Say which data sets of the mix have images in common."""
    known = [DATASETS[name] for name in names if name in DATASETS]
    return [
        f"The images of {each.title} were taken from {DATASETS[other].title}, under other names "
        "and patient ids: the same image may be in train and in test, and then every figure on "
        "test images is too good. Use one of the two, or a split.method that keeps them together."
        for each in known
        for other in each.images_of
        if other in names
    ]
