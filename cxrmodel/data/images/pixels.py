"""Decoded images by row: from the memory map, or decoded as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.pixel_cache import ImageCache
from cxrmodel.data.images.pixel_readers import DecodedPixels, MappedPixels, source_changed
from cxrmodel.data.images.reader import ImageReader
from cxrmodel.data.images.records import RECORD, Records, outcomes_of, record_of
from cxrmodel.data.ledger import (
    REMEDIES,
    count_reasons,
    describe_counts,
    ledger,
    warn_of_losses,
    write_ledger,
)
from cxrmodel.errors import DataError
from cxrmodel.progress import Progress, ReportProgress, silent
from cxrmodel.storage.layout import IMAGES_FILE, OK

REPORT_EVERY = 256

Shards = Iterable[tuple[range, Records]]


class Pixels(Protocol):
    """Decoded images, a row per image of the index; safe to read from several threads."""

    @property
    def size(self) -> int:
        """Side of an image in pixels."""
        ...

    @property
    def names(self) -> list[str]:
        """Image name of each row."""
        ...

    def rows_of(self, images: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each image; a DataError names one that is unknown or excluded."""
        ...

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the pixels of B rows, (B, S, S) uint8."""
        ...


def decode_images(
    config: ImagesConfig,
    root: str,
    index: Path,
    directory: Path,
    *,
    scratch: Path,
    num_workers: int | None = None,
    decode_shards: Callable[[int], Shards] | None = None,
    report: ReportProgress = silent,
) -> dict[str, Any]:
    """Decode every image of the index once, and write images.parquet and excluded.parquet.

    With config.cache on, the pixels stay in scratch for the stages that follow, and a killed run
    goes on where it stopped; off, or decoded elsewhere, they are dropped. The files are the same.

    Args:
        config: How to decode.
        root: Folder or URL of the data set.
        index: Folder of the index stage.
        directory: Folder to write to.
        scratch: Node-local folder for the pixels.
        num_workers: Threads that decode.
        decode_shards: From the number of images to the records of all their rows, range by range,
            where other machines decode.
        report: Told the number of images done.

    Returns:
        num_images, num_excluded and excluded_by_reason.

    Raises:
        DataError: Not a single image can be decoded.
        ScratchSpaceError: The pixels do not fit in scratch.
        OSError: The data set cannot be reached; worth another try.
    """
    reader = ImageReader(config, root, index, num_workers)
    if decode_shards is None and config.cache:
        records = _decode_into_cache(config, reader, index, scratch, report)
    else:
        shards = (decode_shards or partial(_decode_here, reader))(len(reader.names))
        records = _collect(shards, len(reader.names), report)
    outcomes = outcomes_of(records, reader.names)
    excluded = outcomes[outcomes["status"] != OK]
    rows = ledger(excluded["image"], excluded["status"], excluded["detail"])
    if len(rows) == len(outcomes):
        raise DataError(
            f"None of the {len(rows):,} images of {root} can be decoded: {describe_counts(rows)}. "
            f"The first is {rows['image'].iloc[0]}: {rows['detail'].iloc[0]}. "
            f"{REMEDIES[rows['reason'].iloc[0]]}"
        )
    outcomes.drop(columns="detail").to_parquet(
        directory / IMAGES_FILE, index=False, compression="zstd"
    )
    write_ledger(rows, directory)
    warn_of_losses(rows, len(outcomes) - len(rows))
    return {
        "num_images": len(outcomes) - len(rows),
        "num_excluded": len(rows),
        "excluded_by_reason": count_reasons(rows),
    }


def _decode_into_cache(
    config: ImagesConfig, reader: ImageReader, index: Path, scratch: Path, report: ReportProgress
) -> Records:
    cache = ImageCache(config, index, len(reader.names), scratch)
    cache.build(reader, np.arange(len(reader.names)), report=report)
    return cache.records()


def _decode_here(reader: ImageReader, num_images: int) -> Iterator[tuple[range, Records]]:
    for decoded in reader.decode_many(range(num_images)):
        yield range(decoded.row, decoded.row + 1), record_of(decoded)


def _collect(shards: Shards, num_images: int, report: ReportProgress) -> Records:
    records = np.zeros(num_images, RECORD)
    done = told = 0
    for rows, found in shards:
        records[rows.start : rows.stop] = found
        done += len(rows)
        if done - told >= REPORT_EVERY or done == num_images:
            report(Progress("images", done, num_images))
            told = done
    return records


def decode_rows(reader: ImageReader, rows: range) -> Records:
    """Decode some rows for their records alone; the pixels are dropped."""
    return np.array([record_of(decoded) for decoded in reader.decode_many(rows)], RECORD)


def open_pixels(
    config: ImagesConfig,
    root: str,
    index: Path,
    images: Path,
    *,
    scratch: Path,
    num_workers: int | None = None,
    report: ReportProgress = silent,
) -> Pixels:
    """Open the decoded images, filling the memory map again where scratch has lost it.

    Args:
        config: How to decode, and whether to keep a memory map.
        root: Folder or URL of the data set.
        index: Folder of the index stage.
        images: Folder of the images stage.
        scratch: Node-local folder of the memory map.
        num_workers: Threads that decode.
        report: Told the number of images done, where some are decoded.

    Raises:
        DataError: An image now decodes to other pixels than it did, or the folders do not belong
            together.
        ScratchSpaceError: The pixels do not fit in scratch.
        OSError: The data set cannot be reached; worth another try.
    """
    expected = pd.read_parquet(images / IMAGES_FILE)
    reader = ImageReader(config, root, index, num_workers)
    if expected["image"].tolist() != reader.names:
        raise DataError(f"{images} holds checksums of other images than {index} lists.")
    if not config.cache:
        return DecodedPixels(reader, expected)
    cache = ImageCache(config, index, len(reader.names), scratch)
    rows = np.flatnonzero((expected["status"] == OK).to_numpy())
    checksums = expected["crc32"].to_numpy(np.uint32)[rows]
    cache.build(reader, rows, checksums, report)
    changed = rows[(cache.checksums()[rows] != checksums) | (cache.statuses()[rows] != OK)]
    if len(changed):
        raise source_changed(reader.names[changed[0]], cache.statuses()[changed[0]])
    return MappedPixels(reader, expected, cache)
