"""The classifier beside its baselines, on average over pathologies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrmodel.evaluation.intervals import Interval
from cxrmodel.report.figures.theme import FONT_PT, WIDTH_IN, Theme, new_figure, place

ROW_IN, LEFT_IN, GAP_IN, TOP_IN, BOTTOM_IN = 0.3, 2.75, 0.45, 0.42, 0.6
CHANCE = 0.5


@dataclass(frozen=True)
class Rival:
    """A model's macro AUROC on test, and the classifier's lead over it.

    Attributes:
        name: As people know it.
        auroc: None where undefined.
        interval: Of 95 %, None where there is none.
        lead: The classifier's less this one's; None for the classifier itself.
        lead_interval: Of the paired difference.
    """

    name: str
    auroc: float | None
    interval: Interval | None
    lead: float | None
    lead_interval: Interval | None


def draw_rivals(rivals: list[Rival], theme: Theme) -> Figure:
    """Draw a row per model: its macro AUROC, and by how much the classifier is better.

    Args:
        rivals: The classifier first.
        theme: Colours.
    """
    height = ROW_IN * len(rivals)
    figure = new_figure(height + TOP_IN + BOTTOM_IN)
    width = (WIDTH_IN - LEFT_IN - GAP_IN - 0.2) / 2
    left, right = (
        place(figure, LEFT_IN + number * (width + GAP_IN), TOP_IN, width, height)
        for number in range(2)
    )
    for row, rival in enumerate(rivals):
        height_of_row = len(rivals) - 1 - row
        own = {"color": theme.first, "marker": "o", "markerfacecolor": theme.first}
        other = {"color": theme.second, "marker": "s", "markerfacecolor": theme.paper}
        _draw_point(left, rival.auroc, rival.interval, height_of_row, other if row else own)
        _draw_point(right, rival.lead, rival.lead_interval, height_of_row, own)
    names = [rival.name for rival in rivals]
    for axes, level, title, unit in (
        (left, CHANCE, "Macro AUROC", "test, with 95 % interval; dashed: chance"),
        (right, 0.0, "The classifier's lead in macro AUROC", "paired, with 95 % interval"),
    ):
        _finish(axes, level, theme)
        axes.set_title(title)
        axes.set_xlabel(unit)
        labels = names if axes is left else []
        axes.set_yticks(np.arange(len(names))[::-1], labels)
        axes.set_ylim(-0.6, len(names) - 0.4)
    left.get_yticklabels()[0].set_fontweight("bold")
    return figure


def _draw_point(
    axes: Axes, value: float | None, interval: Interval | None, height: int, look: dict[str, Any]
) -> None:
    if value is None:
        return
    if interval is not None:
        axes.plot(interval, [height] * 2, color=look["color"], linewidth=1.8)
    axes.plot(value, height, markersize=5.4, markeredgewidth=1.3, **look)


def _finish(axes: Axes, level: float, theme: Theme) -> None:
    axes.axvline(level, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=0.5)
    axes.tick_params(axis="y", length=0, labelsize=FONT_PT, pad=8)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.margins(x=0.06)
