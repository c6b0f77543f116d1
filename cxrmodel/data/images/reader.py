"""Reads and decodes the listed images one by one, and keeps a record of what became of each."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.config import ImagesConfig
from cxrmodel.data.files.listing import ListedFile
from cxrmodel.data.files.root import Root
from cxrmodel.data.images.batches import map_ahead
from cxrmodel.data.images.decode import DecodedImage, check_square, decode_image
from cxrmodel.data.images.formats import check_bytes
from cxrmodel.data.images.grey import check_contrast
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import ImageError
from cxrmodel.machine import usable_cores
from cxrmodel.storage.layout import LISTING_FILE, OK

REMOTE_WORKERS_PER_CORE = 8  # one decodes while the others wait for the network
IN_FLIGHT_BYTES = 64 << 20
MAX_IN_FLIGHT = 128
DETAIL_BYTES = 192

FORMAT_VERSION = 2  # of the records and of the pixels beside them

PENDING = ""
STATUSES = (
    PENDING,
    OK,
    str(Reason.DAMAGED_IMAGE),
    str(Reason.TOO_LARGE),
    str(Reason.UNSUPPORTED_IMAGE),
    str(Reason.UNREADABLE),
    str(Reason.REPLACED),
    str(Reason.LOW_CONTRAST),
)
"""Statuses in the order of their codes: append, never insert."""

# What another try may find otherwise: the file is back, or a decoder for its format is installed.
RETRIED = (
    PENDING,
    str(Reason.UNREADABLE),
    str(Reason.REPLACED),
    str(Reason.UNSUPPORTED_IMAGE),
)
RECORD = np.dtype(
    [
        ("status", "u1"),
        ("crc32", "<u4"),
        ("width", "<u4"),
        ("height", "<u4"),
        ("detail", f"S{DETAIL_BYTES}"),
    ]
)

Records = NDArray[np.void]


@dataclass(frozen=True)
class Decoded:
    """What became of one image.

    Attributes:
        row: Row of the index.
        status: `ok`, or a `Reason`.
        crc32: Of the pixels; 0 where there are none.
        detail: For the ledger, at most `DETAIL_BYTES` in UTF-8.
        pixels: (S, S) uint8, or None.
        width: Of the file's image, in px; 0 where it was not decoded.
        height: Likewise.
    """

    row: int
    status: str
    crc32: int
    detail: str
    pixels: NDArray[np.uint8] | None
    width: int = 0
    height: int = 0


class ImageReader:
    """Reads and decodes images by row of the index.

    An image that cannot become pixels has a status; a store that cannot be reached raises, so
    that a whole stage can be tried again instead of losing images to a short outage.

    Args:
        config: How to decode.
        root: Folder or URL of the data set.
        index: Folder of the index stage.
        num_workers: Threads; by default one per core, or 8 per core for a remote root.
    """

    def __init__(
        self, config: ImagesConfig, root: str, index: Path, num_workers: int | None = None
    ) -> None:
        self.config = config
        self.names, self._files = read_listing(index)
        self._root = Root(root)
        self.num_workers = num_workers or best_num_workers(self._root)

    def decode(self, row: int) -> Decoded:
        """Read and decode one image; one that fails is read a second time.

        Raises:
            OSError: The store, or the root as a whole, cannot be reached.
        """
        try:
            try:
                image = self._image(row)
            except ImageError:
                image = self._image(row)  # a transfer may cut or flip what the store holds whole
        except ImageError as error:
            return Decoded(row, str(error.reason), 0, _cut(error.detail), None)
        crc32 = zlib.crc32(image.pixels.data)
        return Decoded(row, OK, crc32, "", image.pixels, image.width, image.height)

    def _image(self, row: int) -> DecodedImage:
        data = read_listed(self._root, self._files[row], self.config.max_megapixels)
        image = decode_image(data, self.config)
        check_square(image.pixels, self.config.size)
        check_contrast(image.num_levels)
        return image

    def decode_many(self, rows: Iterable[int]) -> Iterator[Decoded]:
        """Decode rows on all threads, in the given order, with about 64 MiB of pixels in memory."""
        in_memory = min(IN_FLIGHT_BYTES // self.config.size**2, MAX_IN_FLIGHT)
        limit = max(2 * self.num_workers, in_memory)
        return map_ahead(
            self.decode, rows, num_workers=self.num_workers, limit=limit, name="decode"
        )


def read_listing(index: Path) -> tuple[list[str], list[ListedFile]]:
    """Return name and file of each image of an index stage's folder, in its order."""
    listing = pd.read_parquet(index / LISTING_FILE)
    columns = (listing[name].tolist() for name in ("uri", "bytes", "version"))
    files = [ListedFile(*each) for each in zip(*columns, strict=True)]
    return listing["image"].tolist(), files


def best_num_workers(root: Root) -> int:
    """Return how many threads read and decode best: more than one per core over a network."""
    return usable_cores() * (1 if root.is_local else REMOTE_WORKERS_PER_CORE)


def read_listed(root: Root, file: ListedFile, max_megapixels: float) -> bytes:
    """Return the bytes of an image in the version that was listed, in one request.

    Raises:
        ImageError: It has more bytes than such an image can take, or others than were listed.
        OSError: The store, or the root as a whole, cannot be reached.
    """
    check_bytes(file.bytes, max_megapixels)
    if not file.bytes:
        return b""
    data = root.read_image(file.uri, file.bytes + 1, version=file.version)
    if len(data) != file.bytes:
        found = f"{len(data):,}" if len(data) < file.bytes else f"more than {file.bytes:,}"
        raise ImageError(Reason.UNREADABLE, f"{found} bytes, and {file.bytes:,} when it was listed")
    return data


def _cut(detail: str) -> str:
    return detail.encode("utf-8", "replace")[:DETAIL_BYTES].decode("utf-8", "ignore")


def record_of(decoded: Decoded) -> Records:
    """Return the record of one decoded row, a scalar array of `RECORD`."""
    code, detail = STATUSES.index(decoded.status), decoded.detail.encode()
    return np.array((code, decoded.crc32, decoded.width, decoded.height, detail), RECORD)


def statuses_of(records: Records) -> NDArray[np.str_]:
    """Return the (N,) status of each row: `ok`, a `Reason`, or empty where not decoded yet."""
    return np.array(STATUSES)[_codes(records)]


def is_unfinished(records: Records) -> NDArray[np.bool_]:
    """Tell which of the (N,) rows are to be decoded, or tried again."""
    return np.isin(_codes(records), [STATUSES.index(status) for status in RETRIED])


def outcomes_of(records: Records, names: list[str]) -> pd.DataFrame:
    """Return columns image, crc32, width, height (uint32), status and detail, a row per record."""
    numbers = {name: records[name].astype(np.uint32) for name in ("crc32", "width", "height")}
    details = [detail.decode("utf-8", "ignore") for detail in records["detail"].tolist()]
    columns = {"image": names, **numbers, "status": statuses_of(records), "detail": details}
    return pd.DataFrame(columns).astype({"image": "str", "status": "str", "detail": "str"})


def _codes(records: Records) -> NDArray[np.uint8]:
    codes = records["status"]
    return np.where(codes < len(STATUSES), codes, np.uint8(0))
