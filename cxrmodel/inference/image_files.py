"""Images to score, wherever they lie: one by one from bytes to pixels, as in training."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from cxrmodel.data.datasets.data_set import LATERAL, VIEW_TAGS, parse_view, stated_view
from cxrmodel.data.files.local_files import LocalFolder
from cxrmodel.data.files.unforeseen import failures
from cxrmodel.data.images.decode import check_square, decode_image
from cxrmodel.data.images.formats import check_bytes, format_of, max_bytes
from cxrmodel.data.images.grey import check_contrast
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import DataError, ImageError
from cxrmodel.machine import usable_cores

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
OK = "ok"
SQUEEZED = "squeezed"
PIXEL_SHAPE_TAGS = ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing")
MAX_LOG_RATIO = 0.02  # one side is 2 % longer than the other

ReadBytes = Callable[[str, float], bytes]
"""Returns an image's bytes, given its name and the most megapixels it may have; raises an
ImageError for what costs this image alone."""


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

    What cannot be listed, or is a folder without images, stays as it is: `read_image` says why.
    """
    for path in map(str, paths):
        yield from _images_in(path) or [path]


def _images_in(path: str) -> list[str]:
    if not path or (path.casefold().endswith(SUFFIXES) and not is_local(path)):
        return []  # no question to a server about each of many files
    try:
        if is_local(path):
            folder = _local_path(path)
            if not folder.is_dir():
                return []
            inside = LocalFolder(folder, SUFFIXES)
            names = sorted(name for name, _, _ in inside.objects())
            inside.oddities.log(path)
            return [str(folder / name) for name in names]
        files, root = fsspec.core.url_to_fs(path)
        if not files.isdir(root):
            return []
        found = sorted(name for name in files.find(root) if name.casefold().endswith(SUFFIXES))
        _, is_chain, rest = path.partition("::")
        return [f"{files.unstrip_protocol(name)}{is_chain}{rest}" for name in found]
    except failures():
        return []


def is_local(image: str) -> bool:
    """Say whether an image is named by a path of this machine, and not by a URL."""
    return ("://" not in image and "::" not in image) or os.path.lexists(image)


def _local_path(image: str) -> Path:
    try:
        return Path(image).expanduser()
    except RuntimeError:  # there is no such user
        return Path(image)


def read_images(
    images: Iterable[str],
    preprocessing: BundlePreprocessing,
    num_workers: int | None = None,
    *,
    gate: bool = True,
    read: ReadBytes | None = None,
) -> Iterator[ReadImage]:
    """Read and decode images on all cores, in the given order, a bounded number ahead.

    A file that cannot become pixels is a `ReadImage` with its reason, never an error.

    Args:
        images: Paths or URLs.
        preprocessing: How files become pixels.
        num_workers: Threads; by default one per core.
        gate: Refuse a DICOM file whose tags state a lateral view or pixels that are not square.
        read: How to get an image's bytes; by default from its path or URL.
    """
    workers = num_workers or usable_cores()
    waiting: deque[Future[ReadImage]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for image in images:
                waiting.append(pool.submit(read_image, image, preprocessing, gate=gate, read=read))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def read_image(
    image: str,
    preprocessing: BundlePreprocessing,
    *,
    gate: bool = True,
    read: ReadBytes | None = None,
) -> ReadImage:
    """Read and decode one image; see `read_images`."""
    try:
        data = (read or _read)(image, preprocessing.max_megapixels)
        decoded = decode_image(data, preprocessing)
        check_square(decoded.pixels, preprocessing.size)
        check_contrast(decoded.num_levels)
        if gate:
            _check_tags(data)
    except ImageError as error:
        return ReadImage(image, str(error.reason), error.detail, None)
    except DataError as error:  # DICOM, and no pydicom
        return ReadImage(image, str(Reason.UNSUPPORTED_IMAGE), str(error), None)
    return ReadImage(image, OK, "", decoded.pixels)


def _check_tags(data: bytes) -> None:
    """Refuse a DICOM file whose tags state a lateral view, or pixels that are not square."""
    if format_of(data) != "dicom":
        return
    from cxrmodel.data.images.dicom.tags import read_tags  # noqa: PLC0415 - an optional extra

    tags, _ = read_tags(data, [*VIEW_TAGS, *PIXEL_SHAPE_TAGS])
    if stated_view(tags) == LATERAL:
        stated = next(tags[tag] for tag in VIEW_TAGS if parse_view(tags.get(tag, "")))
        raise ImageError(Reason.LATERAL_VIEW, f"its tags state the view {stated}")
    for tag in PIXEL_SHAPE_TAGS:
        if abs(_log_ratio(tags.get(tag, ""))) > MAX_LOG_RATIO:
            sides = tags[tag].replace("\\", " by ")
            raise ImageError(SQUEEZED, f"its {tag} is {sides}: its pixels are not square")


def _log_ratio(sides: str) -> float:
    """Return the logarithm of the ratio of two numbers, as a tag states them; 0 for other texts."""
    try:
        down, right = map(float, sides.split("\\"))
        ratio = math.log(down / right)
    except (ValueError, ZeroDivisionError):
        return 0.0
    return ratio if math.isfinite(ratio) else 0.0


def _read(image: str, max_megapixels: float) -> bytes:
    try:
        if not image:
            raise FileNotFoundError("its path is empty")
        if is_local(image):
            return _read_file(_local_path(image), max_megapixels)
        files, name = fsspec.core.url_to_fs(image)
        if isinstance(files, LocalFileSystem):
            return _read_file(Path(name), max_megapixels)
        size = files.info(name).get("size")
        if size is not None:
            check_bytes(size, max_megapixels)
            return bytes(files.cat_file(name))
        with files.open(name, "rb") as stream:  # a web server that does not tell the size
            data = bytes(stream.read(max_bytes(max_megapixels) + 1))
        check_bytes(len(data), max_megapixels)
        return data
    except failures() as error:
        detail = f"{type(error).__name__}: {error}"
        raise ImageError(Reason.UNREADABLE, detail) from error


def _read_file(path: Path, max_megapixels: float) -> bytes:
    if path.is_dir():
        raise IsADirectoryError(
            f"it is a folder, and no image was found in it: names end in {', '.join(SUFFIXES)}"
        )
    if not path.exists():
        raise FileNotFoundError("there is no such file")
    if not path.is_file():  # a pipe or a device would be read without end
        raise OSError("it is no file")
    check_bytes(path.stat().st_size, max_megapixels)
    return path.read_bytes()
