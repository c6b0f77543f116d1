"""Scores by subgroup, beside those of all test images."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrmodel.evaluation.audit.estimates import Estimate
from cxrmodel.evaluation.audit.subgroups import EVERYONE, Subgroup
from cxrmodel.report.figures.theme import FONT_PT, SMALL_PT, WIDTH_IN, Theme, new_figure, place

ROW_IN, LEFT_IN, GAP_IN, TOP_IN, BOTTOM_IN = 0.27, 2.25, 0.35, 0.42, 0.6
PANELS = (
    ("auroc", "AUROC", "AUROC"),
    ("false_positive_rate", "False-positive rate", "of images with no listed finding"),
    ("false_negative_rate", "False-negative rate", "of images with a listed finding"),
)


def draw_subgroups(subgroups: dict[str, Subgroup], theme: Theme) -> Figure:
    """Draw AUROC, false-positive and false-negative rate, a row per group.

    Args:
        subgroups: By name, all test images first.
        theme: Colours.
    """
    names = list(subgroups)
    height = ROW_IN * len(names)
    figure = new_figure(height + TOP_IN + BOTTOM_IN)
    width = (WIDTH_IN - LEFT_IN - 0.2 - (len(PANELS) - 1) * GAP_IN) / len(PANELS)
    for number, (score, title, unit) in enumerate(PANELS):
        axes = place(figure, LEFT_IN + number * (width + GAP_IN), TOP_IN, width, height)
        estimates = [getattr(group, score) for group in subgroups.values()]
        _draw_panel(axes, estimates, theme)
        axes.set_title(title)
        axes.set_xlabel(unit)
        labels = [f"{name}  ({subgroups[name].num_images:,})" for name in names]
        axes.set_yticks(np.arange(len(names))[::-1], labels if number == 0 else [])
        axes.tick_params(axis="y", length=0, labelsize=SMALL_PT, pad=8)
        if number == 0 and names[0] == EVERYONE:
            axes.get_yticklabels()[0].set_fontweight("bold")
    return figure


def _draw_panel(axes: Axes, estimates: list[Estimate], theme: Theme) -> None:
    count = len(estimates)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.6, count - 0.4), xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.set_xticklabels(["0", "0.25", "0.5", "0.75", "1"], fontsize=FONT_PT - 1)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.axhline(count - 1.5, color=theme.muted, linewidth=0.8)
    if estimates[0].value is not None:
        look: dict[str, Any] = {"color": theme.muted, "linewidth": 1, "linestyle": (0, (4, 3))}
        axes.axvline(estimates[0].value, zorder=0.5, **look)
    for row, estimate in enumerate(estimates):
        colour = theme.ink if row == 0 else theme.first
        place_y = count - 1 - row
        if estimate.value is None:
            continue
        if estimate.interval is not None:
            axes.plot(estimate.interval, [place_y] * 2, color=colour, linewidth=1.5)
        axes.plot(estimate.value, place_y, "o", color=colour, markersize=4.6, clip_on=False)
