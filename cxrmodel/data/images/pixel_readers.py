"""The two ways to read decoded images by row: out of the memory map, or by decoding."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.data.images.pixel_cache import ImageCache
from cxrmodel.data.images.reader import ImageReader
from cxrmodel.errors import DataError
from cxrmodel.storage.layout import OK

logger = logging.getLogger(__name__)


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

    def __init__(self, reader: ImageReader, expected: pd.DataFrame, cache: ImageCache) -> None:
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
