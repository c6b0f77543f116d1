"""Colours, type and sizes shared by all figures, on light and on dark paper.

The two main colours are from Okabe and Ito's set for the colour-blind, and differ in lightness,
so that they stay apart in greyscale; markers differ as well wherever two series meet.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from PIL import Image

WIDTH_IN = 10.4  # at 100 CSS pixels an inch: the width of the page's column
DPI = 200  # two pixels a CSS pixel
FONT_PT = 9.5
SMALL_PT = 8.5
MAX_NAME_CHARS = 40
PT_PER_IN = 72
MIN_WIDTH_IN = 0.01  # of an empty text


@dataclass(frozen=True)
class Theme:
    """Colours of a figure.

    Attributes:
        name: `light` or `dark`.
        paper: Behind everything.
        ink: Text and axes.
        muted: Text and marks of less weight.
        grid: Grid lines.
        first: The main series.
        second: What it is compared with.
        third: What neither is.
    """

    name: str
    paper: str
    ink: str
    muted: str
    grid: str
    first: str
    second: str
    third: str


LIGHT = Theme("light", "#ffffff", "#1b1f24", "#5b6570", "#e4e7eb", "#0b62a4", "#d9730d", "#8a939c")
DARK = Theme("dark", "#14181d", "#e6e9ec", "#9aa4ae", "#2b323a", "#6db6f2", "#f0a04b", "#7d8791")
THEMES = (LIGHT, DARK)


def shown_name(label: str) -> str:
    """Return a label's name as figures show it: without underscores, its end cut off if long."""
    name = label.replace("_", " ")
    return name if len(name) <= MAX_NAME_CHARS else f"{name[: MAX_NAME_CHARS - 1].rstrip()}\u2026"


@lru_cache(maxsize=4096)  # each figure is drawn in two themes
def text_width_in(text: str, size_pt: float = FONT_PT) -> float:
    """Return the width of a text's longest line, in inches."""
    lines = [line for line in text.splitlines() if line.strip()]
    paths = [TextPath((0, 0), line, size=size_pt) for line in lines]
    return max((float(path.get_extents().width) for path in paths), default=0.0) / PT_PER_IN


def fitting_size(text: str, room_in: float, size_pt: float = FONT_PT) -> float:
    """Return the largest size of type up to `size_pt` with which a text has room, in points."""
    return min(size_pt, size_pt * room_in / max(text_width_in(text, size_pt), MIN_WIDTH_IN))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, from 1 to 21.

    Source: Web Content Accessibility Guidelines 2.2, relative luminance and contrast ratio.

    Args:
        one: As matplotlib knows it.
        other: As matplotlib knows it.
    """
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)  # noqa: PLR2004
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _parameters(theme: Theme) -> Any:  # matplotlib types each key as a literal
    return {
        "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same on every machine
        "font.size": FONT_PT,
        "text.parse_math": False,  # names of labels and files may hold dollar signs
        "figure.facecolor": theme.paper,
        "figure.dpi": DPI,
        "savefig.facecolor": theme.paper,
        "savefig.dpi": DPI,
        "text.color": theme.ink,
        "axes.facecolor": theme.paper,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.labelsize": FONT_PT,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": FONT_PT + 0.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 8.0,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "xtick.labelsize": SMALL_PT,
        "ytick.labelsize": SMALL_PT,
        "legend.fontsize": SMALL_PT,
        "legend.frameon": False,
    }


@contextmanager
def drawing(theme: Theme) -> Iterator[None]:
    """Draw and save in a theme; a user's own matplotlib settings come back afterwards."""
    with mpl.rc_context(_parameters(theme)):
        yield


def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """Return an empty figure that no global list of figures keeps alive."""
    return Figure(figsize=(width_in, height_in))


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes by their box in inches, from the top left corner."""
    total_width, total_height = figure.get_size_inches()
    bottom = total_height - top - height
    return figure.add_axes(
        (left / total_width, bottom / total_height, width / total_width, height / total_height)
    )


def rasterize(figure: Figure) -> Image.Image:
    """Return the pixels of a figure, two for each CSS pixel."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    buffer = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return Image.fromarray(np.asarray(buffer)).convert("RGB")


def png(image: Image.Image) -> bytes:
    """Return pixels as PNG, without a date or the name of a program in it."""
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()
