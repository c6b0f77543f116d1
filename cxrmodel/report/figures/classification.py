"""How well each pathology is told apart, beside what it must beat."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cxrmodel.evaluation.evaluate import ClassEvaluation, Evaluation
from cxrmodel.report.figures.theme import FONT_PT, SMALL_PT, WIDTH_IN, Theme, new_figure, place

ROW_IN, LEFT_IN, RIGHT_IN, TOP_IN, BOTTOM_IN = 0.3, 1.75, 1.05, 0.5, 0.55
MACRO = "Macro average"
CHANCE = 0.5


def draw_auroc(classifier: Evaluation, baseline: Evaluation, theme: Theme) -> Figure:
    """Draw the AUROC of each pathology and of their mean, with 95 % intervals.

    Args:
        classifier: The model; its order of AUROC is the order of rows.
        baseline: Principal components with logistic regressions.
        theme: Colours.
    """
    names = _by_metric(classifier, "auroc")
    figure, axes = _rows(names, classifier, theme)
    for evaluation, offset, colour, marker, face in (
        (classifier, 0.13, theme.first, "o", theme.first),
        (baseline, -0.17, theme.second, "s", theme.paper),
    ):
        for row, name in enumerate(names):
            value, interval = _auroc(evaluation, name)
            if value is None:
                continue
            height = len(names) - 1 - row + offset
            if interval is not None:
                axes.plot(
                    interval, [height] * 2, color=colour, linewidth=1.5, solid_capstyle="butt"
                )
            axes.plot(value, height, marker, color=colour, markerfacecolor=face, markersize=5.2)
    axes.axvline(CHANCE, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=0.5)
    low, high = axes.get_xlim()
    axes.set_xlim(max(0.0, min(low, 0.45)), min(1.0, max(high, 0.75)) + 0.005)
    _note_undefined(axes, names, classifier, "auroc", theme)
    axes.set_xlabel("AUROC on test, with 95 % interval; dashed: chance")
    _add_legend(
        figure,
        theme,
        (
            ("classifier on latents", theme.first, "o", theme.first),
            ("PCA + logistic regression", theme.second, "s", theme.paper),
        ),
    )
    return figure


def draw_f1(classifier: Evaluation, theme: Theme) -> Figure:
    """Draw F1 at 0.5 and at the validation threshold, beside that of calling all positive.

    Args:
        classifier: The model.
        theme: Colours.
    """
    names = _by_metric(classifier, "f1")
    figure, axes = _rows(names, classifier, theme)
    for row, name in enumerate(names):
        height = len(names) - 1 - row
        tuned, plain = (_value(classifier, name, metric) for metric in ("f1", "f1_at_0_5"))
        if tuned is not None and plain is not None:
            axes.plot([plain, tuned], [height] * 2, color=theme.third, linewidth=1.4, zorder=1)
        if plain is not None:
            axes.plot(
                plain,
                height,
                "s",
                color=theme.second,
                markerfacecolor=theme.paper,
                markersize=5.4,
                clip_on=False,
            )
        if tuned is not None:
            axes.plot(tuned, height, "o", color=theme.first, markersize=5.4, clip_on=False)
        trivial = _all_positive_f1(classifier, name)
        if trivial is not None:
            axes.plot([trivial] * 2, [height - 0.3, height + 0.3], color=theme.muted, linewidth=1.6)
    axes.set_xlim(0, min(1.0, max(0.1, axes.get_xlim()[1])))
    _note_undefined(axes, names, classifier, "f1", theme)
    axes.set_xlabel("F1 on test")
    _add_legend(
        figure,
        theme,
        (
            ("threshold chosen on validation", theme.first, "o", theme.first),
            ("threshold 0.5", theme.second, "s", theme.paper),
            ("everything called positive", theme.muted, "|", theme.muted),
        ),
    )
    return figure


def _by_metric(evaluation: Evaluation, metric: str) -> list[str]:
    """Macro first, then by decreasing metric; undefined ones last, in their own order."""
    values = {name: entry.metrics[metric].value for name, entry in evaluation.per_class.items()}
    order = sorted(values, key=lambda n: (values[n] is None, -(values[n] or 0.0)))
    return [MACRO, *order]


def _rows(names: list[str], evaluation: Evaluation, theme: Theme) -> tuple[Figure, Axes]:
    height = ROW_IN * len(names)
    figure = new_figure(height + TOP_IN + BOTTOM_IN)
    axes = place(figure, LEFT_IN, TOP_IN, WIDTH_IN - LEFT_IN - RIGHT_IN, height)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_yticks(np.arange(len(names))[::-1], [name.replace("_", " ") for name in names])
    axes.tick_params(axis="y", length=0, labelsize=FONT_PT, pad=8)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.axhline(len(names) - 1.5, color=theme.muted, linewidth=0.8)
    right = _beside(axes, theme) | {"ha": "right"}
    axes.text(1.105, len(names) - 1, "positives", **right)
    for row, name in enumerate(names[1:], start=2):
        entry = evaluation.per_class[name]
        axes.text(1.095, len(names) - row, f"{entry.num_positive:,}", **right)
        if entry.warning:
            axes.text(1.097, len(names) - row, "*", **_beside(axes, theme))
    return figure, axes


def _beside(axes: Axes, theme: Theme) -> dict[str, Any]:
    return {
        "transform": axes.get_yaxis_transform(),
        "va": "center",
        "ha": "left",
        "fontsize": SMALL_PT,
        "color": theme.muted,
    }


def _note_undefined(
    axes: Axes, names: list[str], evaluation: Evaluation, metric: str, theme: Theme
) -> None:
    for row, name in enumerate(names):
        found = (
            evaluation.macro[metric] if name == MACRO else _entry(evaluation, name).metrics[metric]
        )
        if found.value is None:
            style = _beside(axes, theme) | {"style": "italic"}
            axes.text(0.01, len(names) - 1 - row, f"undefined: {found.reason}", **style)


def _entry(evaluation: Evaluation, name: str) -> ClassEvaluation:
    return evaluation.per_class[name]


def _value(evaluation: Evaluation, name: str, metric: str) -> float | None:
    found = evaluation.macro if name == MACRO else evaluation.per_class[name].metrics
    return found[metric].value


def _auroc(evaluation: Evaluation, name: str) -> tuple[float | None, tuple[float, float] | None]:
    source = evaluation.intervals if name == MACRO else evaluation.per_class[name].intervals
    return _value(evaluation, name, "auroc"), source.get("auroc")


def _all_positive_f1(evaluation: Evaluation, name: str) -> float | None:
    """F1 of calling everything positive: recall 1, precision the prevalence p, so 2p / (1 + p)."""
    chosen = list(evaluation.per_class.values()) if name == MACRO else [_entry(evaluation, name)]
    shares = [
        share
        for entry in chosen
        if (share := entry.metrics["prevalence"].value) and entry.metrics["f1"].value is not None
    ]
    return float(np.mean([2 * p / (1 + p) for p in shares])) if shares else None


def _add_legend(
    figure: Figure, theme: Theme, entries: tuple[tuple[str, str, str, str], ...]
) -> None:
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker=marker,
            color=colour,
            markerfacecolor=face,
            markersize=9 if marker == "|" else 5.5,
            markeredgewidth=1.4,
            label=label,
        )
        for label, colour, marker, face in entries
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        ncols=len(handles),
        borderaxespad=0,
        bbox_to_anchor=(LEFT_IN / WIDTH_IN, 1 - 0.12 / figure.get_size_inches()[1]),
        handletextpad=0.3,
        columnspacing=2.0,
        labelcolor=theme.ink,
    )
