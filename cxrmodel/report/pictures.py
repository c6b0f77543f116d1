"""The report's figures as files and as inline images of the page, on light and dark paper."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from cxrmodel.report.figures.theme import DPI, LIGHT, THEMES, Theme, drawing, png

CSS_PX_PER_IN = 100
JPEG_QUALITY = 86
MAX_JPEG_PIXELS = 5_000_000
MAX_JPEG_BYTES = 1_100_000  # two of them, with the other figures, keep the page below 6 MB
SHRINK = 0.8
NUM_COLOURS = 128

Draw = Callable[[Theme], Figure]


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        name: Of its file in `figures/`, without the ending.
        alt: What it shows, for who cannot see it.
        light: `data:` URL.
        dark: `data:` URL.
        width_px: In CSS pixels.
        height_px: In CSS pixels.
    """

    name: str
    alt: str
    light: str
    dark: str
    width_px: int
    height_px: int


class Gallery:
    """The pictures of one page, in the order in which they are drawn.

    Args:
        directory: Where the files are written.

    Attributes:
        pictures: Those drawn so far.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.pictures: list[Picture] = []

    def add(self, name: str, alt: str, draw: Draw, *, is_photograph: bool = False) -> None:
        """Draw one more; see `make_picture`."""
        picture = make_picture(name, alt, draw, self._directory, is_photograph=is_photograph)
        self.pictures.append(picture)


def make_picture(
    name: str, alt: str, draw: Draw, directory: Path, *, is_photograph: bool = False
) -> Picture:
    """Draw a figure, write `<name>.png`, and return it for the page.

    Args:
        name: Of the file, without its ending.
        alt: What the figure shows.
        draw: Draws it in a theme.
        directory: Where the light one is written.
        is_photograph: Inline it as JPEG, several times smaller than PNG.
    """
    drawn = {}
    for theme in THEMES:
        with drawing(theme):
            drawing_png = png(draw(theme))
        drawn[theme.name] = drawing_png if is_photograph else _with_palette(drawing_png)
    (directory / f"{name}.png").write_bytes(drawn[LIGHT.name])
    width, height = Image.open(io.BytesIO(drawn[LIGHT.name])).size
    urls = {
        theme: _jpeg_url(data) if is_photograph else _url("image/png", data)
        for theme, data in drawn.items()
    }
    scale = CSS_PX_PER_IN / DPI
    return Picture(
        name, alt, urls["light"], urls["dark"], round(width * scale), round(height * scale)
    )


def _with_palette(data: bytes) -> bytes:
    """Return a drawing with a palette, a third of the size: few colours and their blends."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    stream = io.BytesIO()
    small = image.quantize(NUM_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _jpeg_url(data: bytes) -> str:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = min(1.0, (MAX_JPEG_PIXELS / (image.width * image.height)) ** 0.5)
    while len(jpeg := _jpeg(image, scale)) > MAX_JPEG_BYTES:
        scale *= SHRINK
    return _url("image/jpeg", jpeg)


def _jpeg(image: Image.Image, scale: float) -> bytes:
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    resized = image if scale == 1 else image.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    resized.save(stream, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return stream.getvalue()


def _url(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
