"""Test images beside their reconstructions and error maps, for the page's viewer.

The same images are kept in a file, so that a later comparison can show them beside another run's.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cxrmodel.report.figures.reconstructions import BOX, ERROR_MAP, Chosen, Examples, join_examples

FILE = "films.parquet"
VIEWS = ("Original", "Reconstruction", "Error")
MAX_BYTES = 2_400_000  # all films of a page: a third more as text, well below 6 MB
NUM_STOPS = 9
WHITE = 255


@dataclass(frozen=True)
class View:
    """One picture of a film.

    Attributes:
        label: What it is.
        url: `data:` URL.
    """

    label: str
    url: str


@dataclass(frozen=True)
class Film:
    """Pictures of one image that lie on each other.

    Attributes:
        name: Of the image.
        lines: What stands above it.
        views: At least one, all of one size.
    """

    name: str
    lines: list[str]
    views: list[View]


@dataclass(frozen=True)
class ErrorScale:
    """What the colours of an error map mean.

    Attributes:
        limit: Where the scale ends, in grey levels of 1; larger errors look the same.
    """

    limit: float

    @property
    def gradient(self) -> str:
        """The scale as a CSS gradient."""
        stops = mpl.colormaps[ERROR_MAP](np.linspace(0, 1, NUM_STOPS))
        return f"linear-gradient(90deg, {', '.join(mpl.colors.to_hex(stop) for stop in stops)})"

    def paint(self, errors: NDArray[np.float32]) -> Image.Image:
        """Return an (s, s) map of errors in colours."""
        return Image.fromarray(mpl.colormaps[ERROR_MAP](errors / self.limit, bytes=True)[..., :3])


def make_films(examples: Examples, scale: ErrorScale, *, max_view_bytes: int) -> list[Film]:
    """Return examples as films of three views.

    Args:
        examples: To show.
        scale: Of the error maps.
        max_view_bytes: Of a view; it is made smaller where it has more.
    """
    films = []
    for row, chosen in enumerate(examples.chosen):
        pictures = (
            grey(examples.originals[row]),
            grey(examples.reconstructions[row]),
            scale.paint(examples.errors[row]),
        )
        views = [
            View(label, jpeg_url(outline(picture, chosen.boxes), max_bytes=max_view_bytes))
            for label, picture in zip(VIEWS, pictures, strict=True)
        ]
        shown = [chosen.title, chosen.image.removesuffix(".png"), f"L1 {examples.l1[row]:.4f}"]
        films.append(Film(chosen.image, [line for line in shown if line], views))
    return films


def outline(picture: Image.Image, boxes: NDArray[np.float64]) -> Image.Image:
    """Return a picture with boxes drawn on it.

    Args:
        picture: Square.
        boxes: (K, 4), left, top, right and bottom in [0, 1].
    """
    if not len(boxes):
        return picture
    outlined = picture.convert("RGB")
    draw = ImageDraw.Draw(outlined)
    for box in boxes:
        draw.rectangle([*np.rint(box * (picture.width - 1))], outline=BOX, width=2)
    return outlined


def grey(pixels: NDArray[np.float32]) -> Image.Image:
    """Return (s, s) pixels in [0, 1] as an 8-bit image."""
    return Image.fromarray(np.rint(np.clip(pixels, 0, 1) * WHITE).astype(np.uint8))


def write_films(parts: Iterable[Examples], scale: ErrorScale, path: Path) -> None:
    """Write each image once, a row per image, its pictures as grey JPEGs.

    Args:
        parts: Examples; an image may be among several of them.
        scale: White in the file is the end of this scale.
        path: Parquet file.
    """
    found = join_examples(list(parts))
    rows = {
        chosen.image: {
            "image": chosen.image,
            "l1": found.l1[row],
            "error_limit": scale.limit,
            "original": encode_jpeg(grey(found.originals[row])),
            "reconstruction": encode_jpeg(grey(found.reconstructions[row])),
            "error": encode_jpeg(grey(found.errors[row] / np.float32(scale.limit))),
        }
        for row, chosen in enumerate(found.chosen)
    }
    pd.DataFrame(list(rows.values())).to_parquet(path, index=False, compression="zstd")


def read_films(data: bytes) -> Examples:
    """Read what `write_films` wrote; errors are cut at the end of its scale.

    Args:
        data: Content of the file.
    """
    table = pd.read_parquet(io.BytesIO(data))
    limits = table["error_limit"].to_numpy(dtype=np.float32)
    return Examples(
        [Chosen(name) for name in table["image"]],
        _decode(table["original"]),
        _decode(table["reconstruction"]),
        _decode(table["error"]) * limits[:, None, None],
        table["l1"].to_numpy(dtype=np.float64),
    )


def _decode(pictures: pd.Series) -> NDArray[np.float32]:
    pixels = [np.asarray(Image.open(io.BytesIO(picture))) for picture in pictures]
    return np.stack(pixels).astype(np.float32) / np.float32(WHITE)


JPEG_QUALITY = 86
MAX_PIXELS = 5_000_000
SHRINK = 0.8


def jpeg_url(image: Image.Image, *, max_bytes: int) -> str:
    """Return an image as a `data:` URL, smaller where it must be.

    Args:
        image: Grey or RGB.
        max_bytes: Of the JPEG; the text of the URL has a third more.
    """
    scale = min(1.0, (MAX_PIXELS / (image.width * image.height)) ** 0.5)
    while len(jpeg := encode_jpeg(image, scale)) > max_bytes:
        scale *= SHRINK
    return data_url("image/jpeg", jpeg)


def encode_jpeg(image: Image.Image, scale: float = 1.0) -> bytes:
    """Return an image as JPEG.

    Args:
        image: Grey or RGB.
        scale: Of its sides.
    """
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    resized = image if scale == 1 else image.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    resized.save(stream, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return stream.getvalue()


def data_url(mime: str, data: bytes) -> str:
    """Return a file's content as a `data:` URL."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
