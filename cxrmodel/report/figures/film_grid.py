"""Rows of films, each with a label: samples, traversals and neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cxrmodel.evaluation.resolution import shrink
from cxrmodel.report.figures.theme import SMALL_PT, WIDTH_IN, Theme, new_figure, place

PANEL_PX = 256
GAP_IN, QUERY_GAP_IN, TITLE_IN, TOP_IN = 0.06, 0.3, 0.36, 0.06
MAX_PANEL_IN = 1.5


@dataclass(frozen=True)
class FilmRow:
    """Films beside each other.

    Attributes:
        label: Of the row; may be empty.
        titles: Of each film; may be empty, for all rows alike.
        films: (F, S, S), float32 in [0, 1].
        is_query: The first film is what the others are beside; a gap sets it apart.
    """

    label: str
    titles: list[str]
    films: NDArray[np.float32]
    is_query: bool = False


def draw_film_grid(rows: list[FilmRow], theme: Theme) -> Figure:
    """Draw the rows below each other, each film as large as the page allows.

    Args:
        rows: At least one, with equally many films.
        theme: Colours.
    """
    left = 0.95 if any(row.label for row in rows) else 0.0
    num_columns = max(len(row.films) for row in rows)
    apart = QUERY_GAP_IN if rows[0].is_query else 0.0
    panel = min(MAX_PANEL_IN, (WIDTH_IN - left - apart) / num_columns - GAP_IN)
    above = [TITLE_IN if any(row.titles) else 0.0 for row in rows]
    figure = new_figure(TOP_IN + sum(above) + len(rows) * (panel + GAP_IN))
    top = TOP_IN
    for row, title_room in zip(rows, above, strict=True):
        top += title_room
        for column, film in enumerate(shrink(row.films, PANEL_PX)):
            across = left + column * (panel + GAP_IN) + (apart if column else 0.0)
            axes = place(figure, across, top, panel, panel)
            _show(axes, film, row.titles[column] if row.titles else "")
            if column == 0 and row.label:
                where: dict[str, Any] = {"ha": "right", "va": "center", "transform": axes.transAxes}
                axes.text(-0.06, 0.5, row.label, fontsize=SMALL_PT, color=theme.ink, **where)
        top += panel + GAP_IN
    return figure


def _show(axes: Axes, film: NDArray[np.float32], title: str) -> None:
    axes.imshow(film, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=SMALL_PT - 0.9, fontweight="normal", pad=3)
