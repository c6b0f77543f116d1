"""Settings of a sweep: each seed's score, the mean, and the difference from the first setting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from matplotlib.figure import Figure

from cxrmodel.evaluation.patient_bootstrap import Estimate
from cxrmodel.report.figures.scores import (
    DASHED,
    MODELS,
    draw_estimate,
    heights_of,
    label_rows,
)
from cxrmodel.report.figures.theme import Theme, shown_name, text_width_in

ROOM_IN = 0.25  # beside the longest name


@dataclass(frozen=True)
class SettingRow:
    """A row of the figure.

    Attributes:
        name: Of the setting.
        by_seed: Its score with each seed; none where it is undefined.
        mean: Their mean.
        change: The mean less that of the first row, None for that row itself.
        is_chosen: Whether the sweep has chosen it.
    """

    name: str
    by_seed: tuple[float, ...]
    mean: Estimate
    change: Estimate | None
    is_chosen: bool


def draw_sweep(rows: list[SettingRow], title: str, theme: Theme) -> Figure:
    """Draw a row per setting.

    Args:
        rows: The first one is what the others are compared with.
        title: Of the score.
        theme: Colours.
    """
    names = [shown_name(row.name) for row in rows]
    room = max(MODELS.left, *(text_width_in(name) + ROOM_IN for name in names))
    figure, (left, right) = replace(MODELS, left=room).panels(len(rows), 2)
    line = {"linewidth": 1.8}
    ring: dict[str, Any] = {"markersize": 4.2, "markerfacecolor": "none", "color": theme.third}
    for height, row in zip(heights_of(rows), rows, strict=True):
        colour = theme.second if row.is_chosen else theme.first
        dot = {"marker": "o", "markersize": 6, "markerfacecolor": colour}
        left.plot(row.by_seed, [height] * len(row.by_seed), "o", **ring)
        draw_estimate(left, Estimate(row.mean.value), height, colour, line, dot)
        if row.change is not None:
            draw_estimate(right, row.change, height, colour, line, dot)
    label_rows(left, names)
    label_rows(right, rows, are_labelled=False)
    right.axvline(0.0, color=theme.muted, **DASHED)
    for axes, text, unit in (
        (left, "Each setting", f"{title} on validation; rings: seeds"),
        (right, f"Less {names[0]}", "paired, with 95 % interval"),
    ):
        axes.margins(x=0.08)
        axes.set_title(text)
        axes.set_xlabel(unit)
    return figure
