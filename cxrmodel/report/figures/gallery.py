"""Figures as files and as inline images of the page, on light and dark paper."""

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
MAX_JPEG_BYTES = 200_000  # a few of them in two themes, with drawings and strips: below 6 MB
NUM_COLOURS = 128
JPEG_QUALITY = 86
MAX_JPEG_PIXELS = 5_000_000
SHRINK = 0.8

Draw = Callable[[Theme], Figure]


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page.

    Attributes:
        name: Of its file in `figures/`, without the ending.
        section: Of the page, by the id of its heading.
        alt: What it shows, for a reader who cannot see it.
        caption: What stands below it.
        summary: Of the fold that it lies in; empty where it is shown at once.
        light: `data:` URL.
        dark: `data:` URL.
        width_px: In CSS pixels.
        height_px: In CSS pixels.
    """

    name: str
    section: str
    alt: str
    caption: str
    summary: str
    light: str
    dark: str
    width_px: int
    height_px: int


class Gallery:
    """The figures of one page, in the order in which they are drawn.

    Args:
        directory: Where the files are written; made where it is missing.

    Attributes:
        figures: Those of the page so far.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.figures: list[PageFigure] = []
        directory.mkdir(exist_ok=True)

    def add(
        self,
        name: str,
        draw: Draw,
        *,
        section: str,
        alt: str,
        caption: str,
        summary: str = "",
        is_photograph: bool = False,
    ) -> None:
        """Draw a figure, write `<name>.png`, and show it at the end of its section's figures.

        Args:
            name: Of the file, without its ending.
            draw: Draws it in a theme.
            section: Of the page, by the id of its heading.
            alt: What it shows, for a reader who cannot see it.
            caption: What stands below it.
            summary: Of a fold to lay it in.
            is_photograph: Inline it as JPEG, several times smaller than PNG.
        """
        light, dark = (_rendered(draw, theme) for theme in THEMES)
        if is_photograph:
            urls = [jpeg_url(image, max_bytes=MAX_JPEG_BYTES) for image in (light, dark)]
        else:
            light, dark = _with_palette(light), _with_palette(dark)
            urls = [_data_url("image/png", png(image)) for image in (light, dark)]
        self._write(name, light)
        width, height = (round(side * CSS_PX_PER_IN / DPI) for side in light.size)
        shown = PageFigure(name, section, alt, caption, summary, urls[0], urls[1], width, height)
        self.figures.append(shown)

    def write(self, name: str, draw: Draw) -> None:
        """Draw a figure that is a file and not on the page."""
        self._write(name, _rendered(draw, LIGHT))

    def _write(self, name: str, image: Image.Image) -> None:
        (self._directory / f"{name}.png").write_bytes(png(image))


def _rendered(draw: Draw, theme: Theme) -> Image.Image:
    with drawing(theme):
        return rasterize(draw(theme))


def _with_palette(image: Image.Image) -> Image.Image:
    """Return a drawing with a palette, a third of the size: few colours and their blends."""
    return image.quantize(NUM_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def jpeg_url(image: Image.Image, *, max_bytes: int) -> str:
    """Return an image as a `data:` URL, smaller where it must be.

    Args:
        image: Grey or RGB.
        max_bytes: Of the JPEG; the text of the URL has a third more.
    """
    scale = min(1.0, (MAX_JPEG_PIXELS / (image.width * image.height)) ** 0.5)
    while len(jpeg := encode_jpeg(image, scale)) > max_bytes:
        scale *= SHRINK
    return _data_url("image/jpeg", jpeg)


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


def _data_url(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
