"""Strips of images that the page's viewer opens: original, reconstruction and error map.

The same images are kept in a file, so that a later comparison can show them beside another run's.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cxrmodel.report.figures.gallery import encode_jpeg, jpeg_url
from cxrmodel.report.figures.reconstructions import (
    BOX,
    ERROR_MAP,
    Example,
    Selection,
    error_limit,
)

VIEWS = ("Original", "Reconstruction", "Error")
MAX_BYTES = 2_400_000  # all images of a page: a third more as text, well below 6 MB
NUM_STOPS = 9
WHITE = 255


@dataclass(frozen=True)
class View:
    """One of the views of an image, which lie on top of each other.

    Attributes:
        label: What it is.
        url: `data:` URL.
    """

    label: str
    url: str


@dataclass(frozen=True)
class ViewerImage:
    """An image as the viewer shows it.

    Attributes:
        image: Its name.
        lines: What stands above it.
        views: At least one, all of one size.
    """

    image: str
    lines: list[str]
    views: list[View]


@dataclass(frozen=True)
class ErrorScale:
    """What the colours of an error map mean.

    Attributes:
        limit: Where the scale ends, in grey levels from 0 to 1; larger errors look the same.
    """

    limit: float

    @property
    def gradient(self) -> str:
        """The scale as a CSS gradient."""
        stops = mpl.colormaps[ERROR_MAP](np.linspace(0, 1, NUM_STOPS))
        return f"linear-gradient(90deg, {', '.join(mpl.colors.to_hex(stop) for stop in stops)})"

    def paint(self, error: NDArray[np.float32]) -> Image.Image:
        """Return an (s, s) map of errors in colours."""
        return Image.fromarray(mpl.colormaps[ERROR_MAP](error / self.limit, bytes=True)[..., :3])


@dataclass(frozen=True)
class Strips:
    """The images of one page.

    Attributes:
        images: By strip; strips without an image are left out.
        scale: Of all error maps, None where there is no image.
    """

    images: dict[str, list[ViewerImage]]
    scale: ErrorScale | None


def make_strips(examples: dict[str, list[Example]]) -> Strips:
    """Return examples for the viewer; all share one error scale and the bytes of the page."""
    shown = list(itertools.chain.from_iterable(examples.values()))
    if not shown:
        return Strips({}, None)
    scale = ErrorScale(error_limit(shown))
    share = MAX_BYTES // (len(VIEWS) * len(shown))
    images = {
        name: [view_example(example, scale, max_view_bytes=share) for example in strip]
        for name, strip in examples.items()
    }
    return Strips(images, scale)


def view_example(example: Example, scale: ErrorScale, *, max_view_bytes: int) -> ViewerImage:
    """Return an example as three views.

    Args:
        example: To show.
        scale: Of the error map.
        max_view_bytes: Of a view; it is made smaller where it has more.
    """
    selection = example.selection
    drawn = (grey(example.original), grey(example.reconstruction), scale.paint(example.error))
    views = [
        View(label, jpeg_url(outline(image, selection.boxes), max_bytes=max_view_bytes))
        for label, image in zip(VIEWS, drawn, strict=True)
    ]
    lines = [selection.title, selection.name, f"L1 {selection.l1:.4f}"]
    return ViewerImage(selection.image, [line for line in lines if line], views)


def outline(image: Image.Image, boxes: NDArray[np.float64]) -> Image.Image:
    """Return an image with boxes drawn on it.

    Args:
        image: Square.
        boxes: (K, 4), left, top, right and bottom in [0, 1].
    """
    if not len(boxes):
        return image
    outlined = image.convert("RGB")
    draw = ImageDraw.Draw(outlined)
    for box in boxes:
        draw.rectangle([*np.rint(box * (image.width - 1))], outline=BOX, width=2)
    return outlined


def grey(pixels: NDArray[np.float32]) -> Image.Image:
    """Return (s, s) pixels in [0, 1] as an 8-bit image."""
    return Image.fromarray(np.rint(np.clip(pixels, 0, 1) * WHITE).astype(np.uint8))


def write_examples(strips: Iterable[list[Example]], limit: float, path: Path) -> None:
    """Write a row per image, its views as grey JPEGs.

    Args:
        strips: An image may be in several of them; it is written once.
        limit: White in the file is an error of this size or more.
        path: Parquet file.
    """
    rows = {
        example.selection.image: {
            "image": example.selection.image,
            "l1": example.selection.l1,
            "error_limit": limit,
            "original": encode_jpeg(grey(example.original)),
            "reconstruction": encode_jpeg(grey(example.reconstruction)),
            "error": encode_jpeg(grey(example.error / np.float32(limit))),
        }
        for example in itertools.chain.from_iterable(strips)
    }
    pd.DataFrame(list(rows.values())).to_parquet(path, index=False, compression="zstd")


def read_examples(data: bytes) -> list[Example]:
    """Read what `write_examples` wrote; errors are cut at the limit they were written with.

    Args:
        data: Content of the file.
    """
    return [
        Example(
            Selection(row["image"], row["l1"]),
            _decode(row["original"]),
            _decode(row["reconstruction"]),
            _decode(row["error"]) * np.float32(row["error_limit"]),
        )
        for row in pd.read_parquet(io.BytesIO(data)).to_dict("records")
    ]


def _decode(jpeg: bytes) -> NDArray[np.float32]:
    return np.asarray(Image.open(io.BytesIO(jpeg))).astype(np.float32) / np.float32(WHITE)
