"""Scores with their intervals: by pathology, beside the baselines, and by subgroup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cxrmodel.evaluation.audit.subgroups import EVERYONE, Subgroup
from cxrmodel.evaluation.evaluate import Evaluation
from cxrmodel.evaluation.patient_bootstrap import Estimate
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
            found = _estimate(evaluation, name, "auroc")
            if found.value is None:
                continue
            height = len(names) - 1 - row + offset
            if found.interval is not None:
                look: dict[str, Any] = {"linewidth": 1.5, "solid_capstyle": "butt"}
                axes.plot(found.interval, [height] * 2, color=colour, **look)
            axes.plot(
                found.value, height, marker, color=colour, markerfacecolor=face, markersize=5.2
            )
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


def draw_f1(classifier: Evaluation, all_positive: Evaluation, theme: Theme) -> Figure:
    """Draw F1 at 0.5 and at the validation threshold, beside that of calling all positive.

    Args:
        classifier: The model.
        all_positive: Everything called positive.
        theme: Colours.
    """
    names = _by_metric(classifier, "f1")
    figure, axes = _rows(names, classifier, theme)
    for row, name in enumerate(names):
        height = len(names) - 1 - row
        tuned, plain, trivial = (
            _estimate(evaluation, name, metric).value
            for evaluation, metric in (
                (classifier, "f1"),
                (classifier, "f1_at_0_5"),
                (all_positive, "f1"),
            )
        )
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
        found = _estimate(evaluation, name, metric)
        if found.value is None:
            style = _beside(axes, theme) | {"style": "italic"}
            axes.text(0.01, len(names) - 1 - row, f"undefined: {found.reason}", **style)


def _estimate(evaluation: Evaluation, name: str, metric: str) -> Estimate:
    found = evaluation.macro if name == MACRO else evaluation.per_class[name].metrics
    return found[metric]


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


MODEL_ROW_IN, MODEL_LEFT_IN, MODEL_GAP_IN, MODEL_TOP_IN, MODEL_BOTTOM_IN = (
    0.3,
    2.75,
    0.45,
    0.42,
    0.6,
)


@dataclass(frozen=True)
class Rival:
    """A model's macro AUROC on test, and the classifier's lead over it.

    Attributes:
        name: As people know it.
        auroc: Its macro AUROC.
        lead: The classifier's less this one's, paired; None for the classifier itself.
    """

    name: str
    auroc: Estimate
    lead: Estimate | None


def draw_rivals(rivals: list[Rival], theme: Theme) -> Figure:
    """Draw a row per model: its macro AUROC, and by how much the classifier is better.

    Args:
        rivals: The classifier first.
        theme: Colours.
    """
    height = MODEL_ROW_IN * len(rivals)
    figure = new_figure(height + MODEL_TOP_IN + MODEL_BOTTOM_IN)
    width = (WIDTH_IN - MODEL_LEFT_IN - MODEL_GAP_IN - 0.2) / 2
    left, right = (
        place(figure, MODEL_LEFT_IN + number * (width + MODEL_GAP_IN), MODEL_TOP_IN, width, height)
        for number in range(2)
    )
    for row, rival in enumerate(rivals):
        height_of_row = len(rivals) - 1 - row
        own = {"color": theme.first, "marker": "o", "markerfacecolor": theme.first}
        other = {"color": theme.second, "marker": "s", "markerfacecolor": theme.paper}
        _draw_point(left, rival.auroc, height_of_row, other if row else own)
        if rival.lead is not None:
            _draw_point(right, rival.lead, height_of_row, own)
    names = [rival.name for rival in rivals]
    for axes, level, title, unit in (
        (left, CHANCE, "Macro AUROC", "test, with 95 % interval; dashed: chance"),
        (right, 0.0, "The classifier's lead in macro AUROC", "paired, with 95 % interval"),
    ):
        _finish_models(axes, level, theme)
        axes.set_title(title)
        axes.set_xlabel(unit)
        labels = names if axes is left else []
        axes.set_yticks(np.arange(len(names))[::-1], labels)
        axes.set_ylim(-0.6, len(names) - 0.4)
    left.get_yticklabels()[0].set_fontweight("bold")
    return figure


def _draw_point(axes: Axes, estimate: Estimate, height: int, look: dict[str, Any]) -> None:
    if estimate.value is None:
        return
    if estimate.interval is not None:
        axes.plot(estimate.interval, [height] * 2, color=look["color"], linewidth=1.8)
    axes.plot(estimate.value, height, markersize=5.4, markeredgewidth=1.3, **look)


def _finish_models(axes: Axes, level: float, theme: Theme) -> None:
    axes.axvline(level, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=0.5)
    axes.tick_params(axis="y", length=0, labelsize=FONT_PT, pad=8)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.margins(x=0.06)


GROUP_ROW_IN, GROUP_LEFT_IN, GROUP_GAP_IN, GROUP_TOP_IN, GROUP_BOTTOM_IN = (
    0.27,
    2.25,
    0.35,
    0.42,
    0.6,
)
GROUP_PANELS = (
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
    height = GROUP_ROW_IN * len(names)
    figure = new_figure(height + GROUP_TOP_IN + GROUP_BOTTOM_IN)
    width = (WIDTH_IN - GROUP_LEFT_IN - 0.2 - (len(GROUP_PANELS) - 1) * GROUP_GAP_IN) / len(
        GROUP_PANELS
    )
    for number, (score, title, unit) in enumerate(GROUP_PANELS):
        axes = place(
            figure, GROUP_LEFT_IN + number * (width + GROUP_GAP_IN), GROUP_TOP_IN, width, height
        )
        estimates = [getattr(group, score) for group in subgroups.values()]
        _draw_group_panel(axes, estimates, theme)
        axes.set_title(title)
        axes.set_xlabel(unit)
        labels = [f"{name}  ({subgroups[name].num_images:,})" for name in names]
        axes.set_yticks(np.arange(len(names))[::-1], labels if number == 0 else [])
        axes.tick_params(axis="y", length=0, labelsize=SMALL_PT, pad=8)
        if number == 0 and names[0] == EVERYONE:
            axes.get_yticklabels()[0].set_fontweight("bold")
    return figure


def _draw_group_panel(axes: Axes, estimates: list[Estimate], theme: Theme) -> None:
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
