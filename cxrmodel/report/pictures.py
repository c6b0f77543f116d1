"""The report's figures as files and as inline images of the page, on light and dark paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from cxrmodel.report.figures.reconstructions import Examples
from cxrmodel.report.figures.theme import DPI, LIGHT, THEMES, Theme, drawing, png, rasterize
from cxrmodel.report.films import MAX_BYTES, VIEWS, ErrorScale, Film, make_films
from cxrmodel.report.jpeg import data_url, jpeg_url

CSS_PX_PER_IN = 100
MAX_JPEG_BYTES = 200_000  # a few of them in two themes, with drawings and films: below 6 MB
NUM_COLOURS = 128

Draw = Callable[[Theme], Figure]


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        name: Of its file in `figures/`, without the ending.
        alt: Text for readers who cannot see the picture.
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
        films: Strips of films for the viewer, by name.
        scale: Of the films' error maps, None where there is no film.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.pictures: list[Picture] = []
        self.films: dict[str, list[Film]] = {}
        self.scale: ErrorScale | None = None

    def add(self, name: str, alt: str, draw: Draw, *, is_photograph: bool = False) -> None:
        """Draw one more; see `make_picture`."""
        picture = make_picture(name, alt, draw, self._directory, is_photograph=is_photograph)
        self.pictures.append(picture)

    def add_films(self, parts: dict[str, Examples], scale: ErrorScale) -> None:
        """Add strips of films, which share the bytes that films may have."""
        num_views = len(VIEWS) * sum(len(examples.chosen) for examples in parts.values())
        for name, examples in parts.items():
            share = MAX_BYTES // num_views
            self.films[name] = make_films(examples, scale, max_view_bytes=share)
        self.scale = scale

    def write(self, name: str, draw: Draw) -> None:
        """Draw a figure that is a file and not on the page."""
        with drawing(LIGHT):
            (self._directory / f"{name}.png").write_bytes(png(rasterize(draw(LIGHT))))


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
        theme: jpeg_url(image, max_bytes=MAX_JPEG_BYTES)
        if is_photograph
        else data_url("image/png", png(image))
        for theme, image in drawn.items()
    }
    scale = CSS_PX_PER_IN / DPI
    width, height = round(light.width * scale), round(light.height * scale)
    return Picture(name, alt, urls["light"], urls["dark"], width, height)


def _with_palette(image: Image.Image) -> Image.Image:
    """Return a drawing with a palette, a third of the size: few colours and their blends."""
    return image.quantize(NUM_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
