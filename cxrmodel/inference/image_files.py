"""Images to score, wherever they lie: one by one from bytes to pixels, as in training."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import fsspec
import numpy as np
from numpy.typing import NDArray

from cxrmodel.data.datasets.data_set import LATERAL, VIEW_TAGS, parse_view, stated_view
from cxrmodel.data.images.decode import check_square, decode_image
from cxrmodel.data.images.formats import check_bytes, format_of
from cxrmodel.data.images.grey import check_contrast
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import DataError, ImageError
from cxrmodel.machine import usable_cores

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
OK = "ok"


@dataclass(frozen=True)
class BundlePreprocessing:
    """How a file becomes the square that the network was trained on.

    Attributes:
        size: Side in pixels.
        fit: How another shape becomes square.
        max_megapixels: Larger images are refused unread.
    """

    size: int
    fit: Literal["crop", "pad", "resize"]
    max_megapixels: float


@dataclass(frozen=True)
class ReadImage:
    """One image to score.

    Attributes:
        image: Its path or URL, as given.
        status: `ok`, or a `Reason`.
        detail: What was found, where it is not `ok`.
        pixels: (S, S) uint8, or None.
    """

    image: str
    status: str
    detail: str
    pixels: NDArray[np.uint8] | None


def expand(paths: Iterable[str | Path]) -> Iterator[str]:
    """Yield images: a folder, here or at a URL, becomes the images below it in sorted order.

    Raises:
        DataError: A folder has no image, or no file system for a URL is known or installed.
    """
    for path in map(str, paths):
        try:
            files, root = fsspec.core.url_to_fs(path)
        except (ImportError, ValueError) as error:
            raise DataError(f"{path} cannot be opened: {error}") from error
        if not _is_folder(files, root, path):
            yield path
            continue
        is_local = "://" not in path and "::" not in path
        found = sorted(name for name in files.find(root) if name.casefold().endswith(SUFFIXES))
        if not found:
            raise DataError(
                f"{path} has no image: none of its files ends in {', '.join(SUFFIXES)}. Name files "
                "one by one where theirs end otherwise."
            )
        yield from (name if is_local else files.unstrip_protocol(name) for name in found)


def _is_folder(files: fsspec.AbstractFileSystem, root: str, path: str) -> bool:
    if path.casefold().endswith(SUFFIXES):
        return False  # no question to a server about each of many files
    return bool(files.isdir(root))


def read_images(
    images: Iterable[str], preprocessing: BundlePreprocessing, num_workers: int | None = None
) -> Iterator[ReadImage]:
    """Read and decode images on all cores, in the given order, a bounded number ahead.

    A file that cannot become pixels is a `ReadImage` with its reason, never an error.
    """
    workers = num_workers or usable_cores()
    waiting: deque[Future[ReadImage]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for image in images:
                waiting.append(pool.submit(read_image, image, preprocessing))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def read_image(image: str, preprocessing: BundlePreprocessing) -> ReadImage:
    """Read and decode one image."""
    try:
        data = _read(image, preprocessing.max_megapixels)
        decoded = decode_image(data, preprocessing)
        check_square(decoded.pixels, preprocessing.size)
        check_contrast(decoded.num_levels)
        _check_view(data)
    except ImageError as error:
        return ReadImage(image, str(error.reason), error.detail, None)
    except DataError as error:  # DICOM, and no pydicom
        return ReadImage(image, str(Reason.UNSUPPORTED_IMAGE), str(error), None)
    return ReadImage(image, OK, "", decoded.pixels)


def _check_view(data: bytes) -> None:
    """Refuse a DICOM file whose tags state a lateral view."""
    if format_of(data) != "dicom":
        return
    from cxrmodel.data.images.dicom.tags import read_tags  # noqa: PLC0415 - an optional extra

    tags, _ = read_tags(data, list(VIEW_TAGS))
    if stated_view(tags) == LATERAL:
        stated = next(tags[tag] for tag in VIEW_TAGS if parse_view(tags.get(tag, "")))
        raise ImageError(Reason.LATERAL_VIEW, f"its tags state the view {stated}")


def _read(image: str, max_megapixels: float) -> bytes:
    try:
        if "://" not in image and "::" not in image:
            path = Path(image)
            if not path.is_file():  # a pipe or a device would be read without end
                raise FileNotFoundError("there is no such file")
            check_bytes(path.stat().st_size, max_megapixels)
            return path.read_bytes()
        files, name = fsspec.core.url_to_fs(image)
        size = files.info(name).get("size")
        check_bytes(size or 0, max_megapixels)
        return bytes(files.cat_file(name))
    except (OSError, ValueError, ImportError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise ImageError(Reason.UNREADABLE, detail) from error
