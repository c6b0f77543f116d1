"""The report's figures as files and as inline images of the page, on light and dark paper."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from cxrmodel.report.figures.theme import DPI, LIGHT, THEMES, Theme, drawing, png, rasterize

CSS_PX_PER_IN = 100
JPEG_QUALITY = 86
MAX_JPEG_PIXELS = 5_000_000
MAX_JPEG_BYTES = 250_000  # six of them in two themes, with the drawings, stay below 6 MB
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
            image = rasterize(draw(theme))
        drawn[theme.name] = image if is_photograph else _with_palette(image)
    light = drawn[LIGHT.name]
    (directory / f"{name}.png").write_bytes(png(light))
    urls = {
        theme: jpeg_url(image) if is_photograph else _url("image/png", png(image))
        for theme, image in drawn.items()
    }
    scale = CSS_PX_PER_IN / DPI
    width, height = round(light.width * scale), round(light.height * scale)
    return Picture(name, alt, urls["light"], urls["dark"], width, height)


def _with_palette(image: Image.Image) -> Image.Image:
    """Return a drawing with a palette, a third of the size: few colours and their blends."""
    return image.quantize(NUM_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def jpeg_url(image: Image.Image) -> str:
    """Return an image as a `data:` URL of at most 250 kB, smaller where it must be."""
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
