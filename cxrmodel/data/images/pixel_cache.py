"""Decoded pixels in one memory map on the node's own disk.

`<scratch>/images/<key>/` holds `pixels.u8`, uint8 (N, S, S), rows in index order; `rows.bin`, one
record per row of what became of it; and `lock`. A row's record is written only after its pixels are
on disk, so a process killed at any instant leaves nothing half done that looks finished. The
folder may vanish at any time: it costs the time to decode again.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrmodel.code_digest import code_digest
from cxrmodel.config import ImagesConfig
from cxrmodel.data.images import decode
from cxrmodel.data.images.decode import check_square
from cxrmodel.data.images.reader import (
    FORMAT_VERSION,
    RECORD,
    Decoded,
    ImageReader,
    is_unfinished,
    record_of,
    statuses_of,
)
from cxrmodel.errors import ImageError, ScratchSpaceError
from cxrmodel.progress import Progress, ReportProgress, silent
from cxrmodel.storage.disk import GIB, bytes_on_disk, explain_full_disk, free_bytes
from cxrmodel.storage.layout import LISTING_FILE

KEY_CHARS = 16
PIXELS_FILE, ROWS_FILE, LOCK_FILE = "pixels.u8", "rows.bin", "lock"
BLOCK_BYTES = 64 << 20
MIN_BLOCK_ROWS, MAX_BLOCK_ROWS = 16, 512
SHOWN_FOLDERS = 8

logger = logging.getLogger(__name__)


class PixelCache:
    """The memory map of one listing, decoded one way.

    Args:
        config: How images are decoded.
        index: Folder of the index stage.
        num_images: Rows of the index.
        scratch: Node-local folder.
    """

    def __init__(self, config: ImagesConfig, index: Path, num_images: int, scratch: Path) -> None:
        self.directory = scratch.absolute() / "images" / cache_key(config, index)
        self.size = config.size
        self.num_images = num_images
        self._row_bytes = config.size**2

    def statuses(self) -> NDArray[np.str_]:
        """Return the (N,) status of each row: `ok`, a `Reason`, or empty where not decoded yet."""
        return statuses_of(self.records())

    def checksums(self) -> NDArray[np.uint32]:
        """Return the (N,) CRC-32 of each row's pixels, 0 where there are none."""
        return self.records()["crc32"].astype(np.uint32)

    def records(self) -> NDArray[np.void]:
        """Return the (N,) records of what became of the rows."""
        if not self.is_whole():
            return np.zeros(self.num_images, RECORD)
        return np.fromfile(self.directory / ROWS_FILE, RECORD)

    def pixels(self) -> NDArray[np.uint8]:
        """Map the pixels, read-only, (N, S, S)."""
        shape = (self.num_images, self.size, self.size)
        return np.memmap(self.directory / PIXELS_FILE, np.uint8, "r", shape=shape)

    def build(
        self,
        reader: ImageReader,
        rows: NDArray[np.int64],
        checksums: NDArray[np.uint32] | None = None,
        report: ReportProgress = silent,
    ) -> None:
        """Decode those of the rows that are not decoded yet; one process at a time.

        Rows that another try may find otherwise are tried again: `reader.RETRIED`.

        Args:
            reader: Decodes.
            rows: (R,) rows wanted.
            checksums: (R,) their CRC-32; rows that have another are decoded again.
            report: Told the number of rows done.

        Raises:
            ScratchSpaceError: The pixels do not fit on the disk of scratch.
            DiskFullError: They did, and it has filled up meanwhile; what is done so far stays.
            OSError: The data set cannot be reached; what is done so far stays.
        """
        with explain_full_disk(**{"store.scratch": self.directory}), self._locked():
            self._create()
            pending = self._pending(rows, checksums)
            if len(pending) == 0:
                return
            self._check_space(len(pending))
            logger.info("Decoding %d of %d images into %s", len(pending), len(rows), self.directory)
            self._fill(reader, pending, len(rows) - len(pending), report)

    def repair(self, row: int, pixels: NDArray[np.uint8]) -> None:
        """Write the pixels of one row again."""
        with self._open(PIXELS_FILE) as descriptor:
            self._write_pixels(descriptor, row, pixels)

    def is_whole(self) -> bool:
        """Tell whether both files are there, at their full length."""
        return all(
            path.is_file() and path.stat().st_size == size for path, size in self._files().items()
        )

    def _files(self) -> dict[Path, int]:
        return {
            self.directory / PIXELS_FILE: self.num_images * self._row_bytes,
            self.directory / ROWS_FILE: self.num_images * RECORD.itemsize,
        }

    def _pending(
        self, rows: NDArray[np.int64], checksums: NDArray[np.uint32] | None
    ) -> NDArray[np.int64]:
        records = self.records()[rows]
        pending = is_unfinished(records)
        if checksums is not None:
            pending |= records["crc32"] != checksums
        return rows[pending]

    def _create(self) -> None:
        if self.is_whole():
            return
        (self.directory / ROWS_FILE).unlink(missing_ok=True)  # first: no record without its pixels
        for path, size in self._files().items():
            with path.open("wb") as stream:
                stream.truncate(size)  # sparse: takes no room until written

    def _check_space(self, num_rows: int) -> None:
        needed = num_rows * self._row_bytes
        free = free_bytes(self.directory)
        if needed > free:
            raise ScratchSpaceError(
                f"Decoded images need {needed:,} bytes in {self.directory}, and {free:,} are free. "
                "Set store.scratch to a larger disk, images.size or data.fraction lower, or "
                f"images.cache to false to decode on the fly.{_deletable(self.directory)}"
            )

    def _fill(
        self,
        reader: ImageReader,
        rows: NDArray[np.int64],
        done: int,
        report: ReportProgress,
    ) -> None:
        total = done + len(rows)
        block_rows = min(max(BLOCK_BYTES // self._row_bytes, MIN_BLOCK_ROWS), MAX_BLOCK_ROWS)
        block: list[Decoded] = []
        with self._open(PIXELS_FILE) as pixels, self._open(ROWS_FILE) as records:
            try:
                for decoded in reader.decode_many(rows.tolist()):
                    block.append(self._stored(pixels, decoded))
                    if len(block) == block_rows:
                        done += _finish(pixels, records, block)
                        report(Progress("images", done, total))
            finally:  # on a signal or an unreachable store too: what is decoded stays decoded
                done += _finish(pixels, records, block)
        report(Progress("images", done, total))

    def _stored(self, descriptor: int, decoded: Decoded) -> Decoded:
        """Write what is decoded, and return what became of it."""
        if decoded.pixels is None:
            return decoded
        try:
            self._write_pixels(descriptor, decoded.row, decoded.pixels)
        except ImageError as error:
            return Decoded(decoded.row, str(error.reason), 0, error.detail, None)
        return decoded

    def _write_pixels(self, descriptor: int, row: int, pixels: NDArray[np.uint8]) -> None:
        check_square(pixels, self.size)
        # Written, not stored through the map, where a full disk would kill the process.
        pixels = np.ascontiguousarray(pixels)
        view, offset = pixels.data.cast("B"), row * self._row_bytes
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written

    @contextmanager
    def _open(self, name: str) -> Iterator[int]:
        descriptor = os.open(self.directory / name, os.O_RDWR)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / LOCK_FILE).open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("Waiting for another process that fills %s", self.directory)
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield  # closing releases the lock, as does the death of the process


def cache_key(config: ImagesConfig, index: Path) -> str:
    """Return the folder name for a listing decoded one way.

    The decoder's code is part of it: pixels of an older one must not be taken for its own.
    """
    listing = hashlib.sha256((index / LISTING_FILE).read_bytes()).hexdigest()
    decoder = code_digest(decode.__name__)
    text = f"{FORMAT_VERSION} {config.fingerprint()} {listing} {decoder}"
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_CHARS]


def _finish(pixels: int, records: int, block: list[Decoded]) -> int:
    """Sync the pixels to disk, then record their rows; empties the block, returns its length."""
    finished = block.copy()
    block.clear()  # first: a second try at a sync that failed would report success
    os.fsync(pixels)
    for decoded in finished:
        os.pwrite(records, record_of(decoded).tobytes(), decoded.row * RECORD.itemsize)
    return len(finished)


def _deletable(directory: Path) -> str:
    """Name the other memory maps beside this one: they take room, and may be of no use."""
    locks = sorted(directory.parent.glob(f"*/{LOCK_FILE}"))
    others = [lock for lock in locks if lock.parent != directory]
    if not others:
        return ""
    shown = "; ".join(
        f"{lock.parent}, {bytes_on_disk(lock.parent) / GIB:.2f} GiB, last opened "
        f"{datetime.fromtimestamp(lock.stat().st_mtime, UTC):%Y-%m-%d}"
        for lock in others[:SHOWN_FOLDERS]
    )
    return f" Older folders, which may be deleted when no run uses them: {shown}."
