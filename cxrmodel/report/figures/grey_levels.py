"""How bright the images of each data set are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cxrmodel.report.figures.theme import WIDTH_IN, Theme, new_figure, place, shown_name

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

LEVELS = 256
BIN = 4  # grey levels per step of a line: few enough to see its shape, enough to see clipping
MAX_READ = 100  # images of each data set
STYLES = ("-", "--", ":", "-.")


def count_grey_levels(
    images: pd.DataFrame, pixels: Pixels, *, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Return the share of the pixels of each grey level by data set, (256,) each.

    Args:
        images: N rows with `image` and `source`.
        pixels: Up to 100 images of each data set are read, one at a time.
        seed: Of the draw of these.
    """
    found = {}
    for source, own in images.groupby("source", sort=False)["image"]:
        drawn = own.sample(min(len(own), MAX_READ), random_state=seed)
        counts = np.zeros(LEVELS)
        for row in pixels.rows_of(drawn.tolist()):
            counts += np.bincount(pixels.read(np.array([row])).ravel(), minlength=LEVELS)
        found[str(source)] = counts / counts.sum()
    return found


def draw_grey_levels(shares: dict[str, NDArray[np.float64]], theme: Theme) -> Figure:
    """Draw a line per data set.

    Args:
        shares: (256,), the share of the pixels of each grey level, by data set.
        theme: Colours.
    """
    figure = new_figure(2.6)
    axes = place(figure, 0.72, 0.2, WIDTH_IN - 0.9, 1.85)
    colours = (theme.first, theme.second, theme.third, theme.ink)
    for number, (source, share) in enumerate(shares.items()):
        axes.stairs(
            100 * share.reshape(-1, BIN).sum(axis=1),
            np.arange(0, LEVELS + 1, BIN),
            baseline=None,
            color=colours[number % len(colours)],
            linestyle=STYLES[number // len(colours) % len(STYLES)],
            linewidth=1.6,
            label=shown_name(source),
        )
    axes.set_xlim(0, LEVELS)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("grey level (0 is black, 255 is white)")
    axes.set_ylabel("pixels (%)")
    axes.grid(axis="y")
    if len(shares) > 1:
        axes.legend(loc="best")
    return figure
