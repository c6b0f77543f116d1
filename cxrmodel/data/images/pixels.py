"""Decoded images by row: decoded once, then read from a memory map or decoded at every read."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.config import SIDE_STEP, ImagesConfig
from cxrmodel.data.files.root import shown_root
from cxrmodel.data.images.pixel_cache import PixelCache
from cxrmodel.data.images.reader import RECORD, ImageReader, Records, outcomes_of, record_of
from cxrmodel.data.ledger import (
    Reason,
    count_reasons,
    describe_counts,
    ledger,
    warn_of_losses,
    write_ledger,
)
from cxrmodel.errors import DataError
from cxrmodel.progress import Progress, ReportProgress, silent
from cxrmodel.storage.layout import IMAGES_FILE, OK

logger = logging.getLogger(__name__)

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
    continues where it stopped; off, or decoded elsewhere, they are dropped. The files written are
    the same.

    Args:
        config: How to decode.
        root: Folder or URL of the data set.
        index: Folder of the index stage.
        directory: Folder to write to.
        scratch: Node-local folder for the pixels.
        num_workers: Threads that decode.
        decode_shards: Where other machines decode: from the number of images to the records of all
            rows, range by range.
        report: Told the number of images done.

    Returns:
        num_images, num_excluded and excluded_by_reason.

    Raises:
        DataError: Not a single image can be decoded.
        ScratchSpaceError: The pixels do not fit in scratch.
        OSError: The data set cannot be reached; worth another try.
    """
    reader = ImageReader(config, root, index, num_workers)
    num_images = len(reader.names)
    if decode_shards is None and config.cache:
        cache = PixelCache(config, index, num_images, scratch)
        cache.build(reader, np.arange(num_images), report=report)
        records = cache.records()
    else:
        shards = (decode_shards or partial(_decode_here, reader))(num_images)
        records = _collect(shards, num_images, report)
    outcomes = outcomes_of(records, reader.names)
    summary = _write_outcomes(outcomes, root, directory)
    _warn_of_enlarged(outcomes[outcomes["status"] == OK], config)
    return summary


def _write_outcomes(outcomes: pd.DataFrame, root: str, directory: Path) -> dict[str, Any]:
    """Write the stage's files and return its summary."""
    excluded = outcomes[outcomes["status"] != OK]
    rows = ledger(excluded["image"], excluded["status"], excluded["detail"])
    num_images = len(outcomes) - len(rows)
    if num_images == 0:
        raise DataError(
            f"None of the {len(rows):,} images of {shown_root(root)} can be decoded: "
            f"{describe_counts(rows)}. The first is {rows['image'].iloc[0]}: "
            f"{rows['detail'].iloc[0]}. {Reason(rows['reason'].iloc[0]).remedy}"
        )
    table = outcomes.drop(columns="detail")
    table.to_parquet(directory / IMAGES_FILE, index=False, compression="zstd")
    write_ledger(rows, directory)
    warn_of_losses(rows, num_images)
    return {
        "num_images": num_images,
        "num_excluded": len(rows),
        "excluded_by_reason": count_reasons(rows),
    }


def _warn_of_enlarged(images: pd.DataFrame, config: ImagesConfig) -> None:
    """Say by how much small images are enlarged, which adds pixels and nothing to see."""
    sides = images[["width", "height"]]
    side = sides.max(axis=1) if config.fit == "pad" else sides.min(axis=1)
    small = side[(side > 0) & (side < config.size)]
    if len(small):
        logger.warning(
            "%d of %d images are smaller than images.size = %d and are enlarged, up to %.1f times "
            "(half of them %.1f times or more): that adds nothing to see. Set images.size to about "
            "%d px where most are small.",
            len(small),
            len(images),
            config.size,
            config.size / small.min(),
            config.size / small.median(),
            max(SIDE_STEP, int(small.median()) // SIDE_STEP * SIDE_STEP),
        )


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
    cache = PixelCache(config, index, len(reader.names), scratch)
    rows = np.flatnonzero((expected["status"] == OK).to_numpy())
    checksums = expected["crc32"].to_numpy(np.uint32)[rows]
    cache.build(reader, rows, checksums, report)
    changed = rows[(cache.checksums()[rows] != checksums) | (cache.statuses()[rows] != OK)]
    if len(changed):
        raise source_changed(reader.names[changed[0]], cache.statuses()[changed[0]])
    return MappedPixels(reader, expected, cache)


class _KnownImages:
    """The rows that the images stage found usable, by name."""

    def __init__(self, reader: ImageReader, expected: pd.DataFrame) -> None:
        self.size = reader.config.size
        self.names = reader.names
        self._reader = reader
        self._checksums = expected["crc32"].to_numpy(np.uint32)
        self._statuses = expected["status"].to_numpy()
        self._is_ok = self._statuses == OK
        self._row_by_name = {name: row for row, name in enumerate(self.names)}

    def rows_of(self, images: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each image, (B,).

        Raises:
            DataError: One is not in the index, or was excluded.
        """
        unknown = [image for image in images if image not in self._row_by_name]
        if unknown:
            raise DataError(f"{unknown[0]} is not an image of the index ({len(unknown)} unknown).")
        rows = np.array([self._row_by_name[image] for image in images], dtype=np.int64)
        self._require_ok(rows)
        return rows

    def _require_ok(self, rows: NDArray[np.int64]) -> None:
        excluded = rows[~self._is_ok[rows]]
        if len(excluded):
            row = excluded[0]
            raise DataError(f"{self.names[row]} has no pixels: it is {self._statuses[row]}.")

    def _decode(self, row: int) -> NDArray[np.uint8]:
        decoded = self._reader.decode(row)
        if decoded.pixels is None or decoded.crc32 != self._checksums[row]:
            raise source_changed(self.names[row], decoded.status)
        return decoded.pixels


class MappedPixels(_KnownImages):
    """Reads from the memory map; a row's checksum is verified the first time it is read."""

    def __init__(self, reader: ImageReader, expected: pd.DataFrame, cache: PixelCache) -> None:
        super().__init__(reader, expected)
        self._cache = cache
        self._map = cache.pixels()
        self._is_verified = np.zeros(len(self.names), dtype=bool)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copy B rows out of the map, (B, S, S); a damaged row is decoded again."""
        self._require_ok(rows)
        for row in rows[~self._is_verified[rows]].tolist():
            if zlib.crc32(self._map[row]) != self._checksums[row]:
                logger.warning(
                    "Pixels of %s are damaged in scratch: decoding it again", self.names[row]
                )
                self._cache.repair(row, self._decode(row))
            self._is_verified[row] = True
        return self._map[rows]


class DecodedPixels(_KnownImages):
    """Decodes at every read, on several threads; for nodes whose disk cannot hold the pixels."""

    def __init__(self, reader: ImageReader, expected: pd.DataFrame) -> None:
        super().__init__(reader, expected)
        self._pool = ThreadPoolExecutor(reader.num_workers, thread_name_prefix="decode")

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decode B rows, (B, S, S)."""
        self._require_ok(rows)
        batch = np.empty((len(rows), self.size, self.size), np.uint8)
        for position, pixels in enumerate(self._pool.map(self._decode, rows.tolist())):
            batch[position] = pixels
        return batch


def source_changed(image: str, status: str) -> DataError:
    """Return the error for an image that decodes to other pixels than it did."""
    return DataError(
        f"{image} no longer decodes to the pixels it had (it is {status} now): the data set has "
        "changed since it was indexed. Run again to index it as it is."
    )
