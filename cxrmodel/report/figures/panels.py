"""Panels by pathology: ROC, precision and recall, reliability, and findings that come together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from cxrmodel.evaluation.calibration import Calibration, Reliability
from cxrmodel.evaluation.cooccurrence import Cooccurrence
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.report.figures.theme import (
    SMALL_PT,
    WIDTH_IN,
    Theme,
    contrast,
    fitting_size,
    new_figure,
    place,
    shown_name,
    text_width_in,
)

NUM_COLUMNS = 5
LEFT_IN, TOP_IN, BOTTOM_IN, GAP_X_IN, GAP_Y_IN = 0.62, 0.78, 0.55, 0.46, 0.62
PANEL_IN = (WIDTH_IN - LEFT_IN - 0.15 - (NUM_COLUMNS - 1) * GAP_X_IN) / NUM_COLUMNS
DASHES = (0, (4, 3))
MATRIX_LEFT_IN, MATRIX_GAP_IN, MATRIX_TOP_IN, MATRIX_BOTTOM_IN = 1.75, 0.3, 0.42, 1.4
MIN_CELL_IN, MAX_CELL_IN = 0.21, 0.3
FEW_CELL_IN, MIN_MATRIX_IN = 0.45, 1.5
UNDEFINED = "\u2013"
LOW_RECALL = 0.1  # below it a precision is of a few images

DrawPanel = Callable[[Axes, str], str | None]
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def draw_roc(model: Predictions, baseline: Predictions, theme: Theme) -> Figure:
    """Draw the ROC curves of the model and of a baseline, a panel per pathology.

    Args:
        model: Predictions of the test images.
        baseline: Of the same images.
        theme: Colours.
    """
    kind = _CurveKind(_roc, "default", ("1 - specificity", "sensitivity"))
    return _draw_curves(model, baseline, kind, theme)


def draw_precision_recall(model: Predictions, baseline: Predictions, theme: Theme) -> Figure:
    """Draw precision over recall, with the prevalence as the level of chance.

    Args:
        model: Predictions of the test images.
        baseline: Of the same images.
        theme: Colours.
    """
    kind = _CurveKind(_precision_recall, "steps-post", ("recall", "precision"))
    return _draw_curves(model, baseline, kind, theme)


@dataclass(frozen=True)
class _CurveKind:
    """A curve over thresholds.

    Attributes:
        points: From labels and probabilities to x and y.
        steps: How points are joined, so that the area below is the score of the table.
        axis_labels: Of x and y.
    """

    points: Callable[[NDArray[np.uint8], NDArray[np.float64]], Curve]
    steps: Literal["default", "steps-post"]
    axis_labels: tuple[str, str]


def _roc(labels: NDArray[np.uint8], probabilities: NDArray[np.float64]) -> Curve:
    false, true, _ = roc_curve(labels, probabilities)
    return false, true


def _precision_recall(labels: NDArray[np.uint8], probabilities: NDArray[np.float64]) -> Curve:
    precision, recall, _ = precision_recall_curve(labels, probabilities)
    precision[-1] = precision[-2]  # scikit-learn ends at a precision of 1 that no image has
    return recall, precision


def _draw_curves(
    model: Predictions, baseline: Predictions, kind: _CurveKind, theme: Theme
) -> Figure:
    def panel(axes: Axes, name: str) -> str | None:
        column = model.pathologies.index(name)
        labels, probabilities, known = model.of_class(column)
        if not labels.any() or labels.all():
            return "needs both classes"
        highest = 0.0
        chance = [0.0, 1.0] if kind.points is _roc else [float(labels.mean())] * 2
        axes.plot([0, 1], chance, color=theme.muted, linewidth=0.8, linestyle=DASHES)
        others = baseline.probabilities[known, column]
        for found, look in ((others, _second(theme)), (probabilities, _first(theme))):
            x, y = kind.points(labels, found)
            axes.plot(x, y, drawstyle=kind.steps, **look)
            highest = max(highest, float(y[x >= LOW_RECALL].max()))
        if kind.points is _precision_recall:
            limit = math.ceil(highest * 10) / 10
            axes.set(ylim=(0, limit * 1.005), yticks=[0, limit])
        return None

    return _draw(model.pathologies, panel, kind.axis_labels, _entries(theme), theme)


def draw_reliability(calibration: Calibration, theme: Theme) -> Figure:
    """Draw what was observed over what was predicted, before and after scaling.

    Args:
        calibration: Of the model.
        theme: Colours.
    """

    def panel(axes: Axes, name: str) -> str | None:
        entry = calibration.per_class[name]
        curves: tuple[Reliability, ...] = (entry.before, entry.after)
        highest = [max(c.predicted.max(initial=0), c.observed.max(initial=0)) for c in curves]
        limit = min(1.0, math.ceil(max(*highest, 0.01) * 21) / 20)
        axes.plot([0, limit], [0, limit], color=theme.muted, linewidth=0.8, linestyle=DASHES)
        looks = (_second(theme, "s"), _first(theme, "o"))
        for curve, look in zip(curves, looks, strict=True):
            axes.plot(curve.predicted, curve.observed, clip_on=False, **look)
        axes.set(xlim=(0, limit), ylim=(0, limit), xticks=[0, limit], yticks=[0, limit])
        if entry.calibrator.reason is not None:
            return "not scaled"
        return None

    entries = {"as predicted": _second(theme, "s"), "after scaling": _first(theme, "o")}
    axis_labels = ("mean probability", "share of positives")
    return _draw(tuple(calibration.per_class), panel, axis_labels, entries, theme)


def _draw(
    names: tuple[str, ...],
    panel: DrawPanel,
    axis_labels: tuple[str, str],
    entries: dict[str, dict[str, Any]],
    theme: Theme,
) -> Figure:
    num_rows = math.ceil(len(names) / NUM_COLUMNS)
    height = num_rows * PANEL_IN + (num_rows - 1) * GAP_Y_IN + TOP_IN + BOTTOM_IN
    figure = new_figure(height)
    for number, name in enumerate(names):
        row, column = divmod(number, NUM_COLUMNS)
        left = LEFT_IN + column * (PANEL_IN + GAP_X_IN)
        axes = place(figure, left, TOP_IN + row * (PANEL_IN + GAP_Y_IN), PANEL_IN, PANEL_IN)
        axes.set(xlim=(0, 1), ylim=(0, 1.005), xticks=[0, 1], yticks=[0, 1])
        note = panel(axes, name)
        _finish(axes, name, note, theme)
        if column == 0:
            axes.set_ylabel(axis_labels[1], labelpad=-4)
        if number + NUM_COLUMNS >= len(names):
            axes.set_xlabel(axis_labels[0], labelpad=-4)
    _add_legend(figure, entries, theme)
    return figure


def _finish(axes: Axes, name: str, note: str | None, theme: Theme) -> None:
    title = shown_name(name)
    size = fitting_size(title, PANEL_IN + 0.1)
    axes.set_title(title, fontsize=size, fontweight="normal", pad=5)
    for axis in (axes.xaxis, axes.yaxis):
        places = axis.get_majorticklocs()
        axis.set_ticks(places, [f"{tick:.2g}" for tick in places])
    if note is not None:
        look: dict[str, Any] = {"fontsize": SMALL_PT - 0.5, "color": theme.muted}
        axes.text(0.96, 0.06, note, transform=axes.transAxes, ha="right", style="italic", **look)


def _first(theme: Theme, marker: str | None = None) -> dict[str, Any]:
    return {"color": theme.first, "linewidth": 1.5, "marker": marker, "markersize": 3.6}


def _second(theme: Theme, marker: str | None = None) -> dict[str, Any]:
    look = {"color": theme.second, "linewidth": 1.1, "linestyle": (0, (2.5, 1.2))}
    return look | {"marker": marker, "markersize": 3.6, "markerfacecolor": theme.paper}


def _entries(theme: Theme) -> dict[str, dict[str, Any]]:
    dashed = {"color": theme.muted, "linewidth": 0.8, "linestyle": DASHES}
    return {
        "classifier on latents": _first(theme),
        "PCA + logistic regression": _second(theme),
        "chance": dashed,
    }


def _add_legend(figure: Figure, entries: dict[str, dict[str, Any]], theme: Theme) -> None:
    handles = [Line2D([], [], label=label, **look) for label, look in entries.items()]
    figure.legend(
        handles=handles,
        loc="upper left",
        ncols=len(handles),
        borderaxespad=0,
        bbox_to_anchor=(LEFT_IN / WIDTH_IN, 1 - 0.1 / figure.get_size_inches()[1]),
        labelcolor=theme.ink,
        columnspacing=2.0,
    )


def draw_cooccurrence(found: Cooccurrence, theme: Theme) -> Figure:
    """Draw both matrices in percent, beside each other where their cells have room for numbers.

    Args:
        found: To draw.
        theme: Colours; one hue from the paper's colour on, so that grey shows it as well.
    """
    names = [shown_name(name) for name in found.names]
    rows = [f"{name}  ({count:,})" for name, count in zip(names, found.counts, strict=True)]
    before = max(MATRIX_LEFT_IN, *(text_width_in(row, SMALL_PT) + 0.15 for row in rows))
    below = max(MATRIX_BOTTOM_IN, *(text_width_in(name, SMALL_PT) + 0.15 for name in names))
    side = (WIDTH_IN - before - MATRIX_GAP_IN - 0.1) / 2
    is_wide = side >= MIN_CELL_IN * len(names)
    if is_wide:  # few labels do not fill the page
        side = min(side, max(MIN_MATRIX_IN, FEW_CELL_IN * len(names)))
    else:  # one below the other
        side = min(MAX_CELL_IN * len(names), WIDTH_IN - before - 0.1)
    height = MATRIX_TOP_IN + side + below
    figure = new_figure(height if is_wide else 2 * height)
    panels = (("Also labelled, %", found.labelled), ("Called positive, %", found.called))
    for number, (title, shares) in enumerate(panels):
        right, down = (number, 0) if is_wide else (0, number)
        left = before + right * (side + MATRIX_GAP_IN)
        axes = place(figure, left, MATRIX_TOP_IN + down * height, side, side)
        _fill_matrix(axes, shares, theme, are_numbered=side >= MIN_CELL_IN * len(names))
        axes.set_title(title)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), rows if right == 0 else [])
    return figure


def _fill_matrix(
    axes: Axes, shares: NDArray[np.float64], theme: Theme, *, are_numbered: bool
) -> None:
    colours = LinearSegmentedColormap.from_list("share", [theme.paper, theme.first])
    axes.imshow(shares, cmap=colours, vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares) if are_numbered else ():
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALL_PT - 0.5}
        if np.isnan(share):
            axes.text(column, row, UNDEFINED, color=theme.muted, **look)
            continue
        below = to_hex(colours(share))
        colour = max((theme.ink, theme.paper), key=lambda one: contrast(one, below))
        weight = "bold" if row == column else "normal"
        axes.text(column, row, f"{100 * share:.0f}", color=colour, fontweight=weight, **look)
    axes.tick_params(length=0)
    axes.spines[:].set(visible=True, color=theme.grid)
