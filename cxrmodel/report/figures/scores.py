"""Scores with their intervals: by pathology, beside the baselines, and by subgroup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cxrmodel.evaluation.audit.subgroups import EVERYONE, Subgroup
from cxrmodel.evaluation.evaluate import Evaluation
from cxrmodel.evaluation.patient_bootstrap import Estimate
from cxrmodel.report.figures.theme import (
    FONT_PT,
    SMALL_PT,
    WIDTH_IN,
    Theme,
    new_figure,
    place,
    shown_name,
    text_width_in,
)

MACRO = "Macro average"
CHANCE = 0.5
DASHED: dict[str, Any] = {"linewidth": 1, "linestyle": (0, (4, 3)), "zorder": 0.5}
GROUP_PANELS = (  # attribute of a subgroup, title, unit
    ("auroc", "AUROC", "AUROC"),
    ("false_positive_rate", "False-positive rate", "of images with no listed finding"),
    ("false_negative_rate", "False-negative rate", "of images with a listed finding"),
)


@dataclass(frozen=True)
class _Layout:
    """Sizes of a figure with labelled rows, in inches: of a row, and of the room around them."""

    row: float
    left: float
    right: float
    top: float
    bottom: float
    gap: float = 0.0

    def panels(self, num_rows: int, num_panels: int = 1) -> tuple[Figure, list[Axes]]:
        """Return a figure with panels beside each other."""
        height = self.row * num_rows
        figure = new_figure(height + self.top + self.bottom)
        gaps = (num_panels - 1) * self.gap
        width = (WIDTH_IN - self.left - self.right - gaps) / num_panels
        lefts = [self.left + number * (width + self.gap) for number in range(num_panels)]
        return figure, [place(figure, left, self.top, width, height) for left in lefts]


PATHOLOGIES = _Layout(row=0.3, left=1.75, right=1.05, top=0.5, bottom=0.55)
MODELS = _Layout(row=0.3, left=2.75, right=0.2, top=0.42, bottom=0.6, gap=0.45)
GROUPS = _Layout(row=0.27, left=2.25, right=0.2, top=0.42, bottom=0.6, gap=0.35)


def draw_auroc(
    classifier: Evaluation,
    baseline: Evaluation,
    theme: Theme,
    names: tuple[str, str] = ("classifier on latents", "PCA + logistic regression"),
    where: str = "on test",
) -> Figure:
    """Draw the AUROC of each pathology and of their mean, with 95 % intervals.

    Args:
        classifier: The model; its order of AUROC is the order of rows.
        baseline: What it is compared with.
        theme: Colours.
        names: What the legend calls the two.
        where: Which images they are judged by.
    """
    rows = _by_metric(classifier, "auroc")
    figure, axes = _pathology_rows(rows, classifier, theme)
    line = {"linewidth": 1.5, "solid_capstyle": "butt"}
    for evaluation, offset, colour, marker, face in (
        (classifier, 0.13, theme.first, "o", theme.first),
        (baseline, -0.17, theme.second, "s", theme.paper),
    ):
        dot = {"marker": marker, "markerfacecolor": face, "markersize": 5.2}
        for height, name in zip(heights_of(rows), rows, strict=True):
            estimate = _estimate(evaluation, name, "auroc")
            draw_estimate(axes, estimate, height + offset, colour, line, dot)
    axes.axvline(CHANCE, color=theme.muted, **DASHED)
    low, high = axes.get_xlim()
    axes.set_xlim(max(0.0, min(low, 0.45)), min(1.0, max(high, 0.75)) + 0.005)
    _note_undefined(axes, rows, classifier, "auroc", theme)
    axes.set_xlabel(f"AUROC {where}, with 95 % interval; dashed: chance")
    entries = (
        (names[0], theme.first, "o", theme.first),
        (names[1], theme.second, "s", theme.paper),
    )
    _add_legend(figure, theme, entries)
    return figure


def draw_f1(classifier: Evaluation, all_positive: Evaluation, theme: Theme) -> Figure:
    """Draw F1 at 0.5 and at the validation threshold, beside that of calling all positive.

    Args:
        classifier: The model.
        all_positive: Everything called positive.
        theme: Colours.
    """
    names = _by_metric(classifier, "f1")
    figure, axes = _pathology_rows(names, classifier, theme)
    dot: dict[str, Any] = {"markersize": 5.4, "clip_on": False}
    for height, name in zip(heights_of(names), names, strict=True):
        tuned, plain = (_estimate(classifier, name, m).value for m in ("f1", "f1_at_0_5"))
        trivial = _estimate(all_positive, name, "f1").value
        if tuned is not None and plain is not None:
            axes.plot([plain, tuned], [height] * 2, color=theme.third, linewidth=1.4, zorder=1)
        if plain is not None:
            look = dot | {"markerfacecolor": theme.paper}
            axes.plot(plain, height, "s", color=theme.second, **look)
        if tuned is not None:
            axes.plot(tuned, height, "o", color=theme.first, **dot)
        if trivial is not None:
            axes.plot([trivial] * 2, [height - 0.3, height + 0.3], color=theme.muted, linewidth=1.6)
    axes.set_xlim(0, min(1.0, max(0.1, axes.get_xlim()[1])))
    _note_undefined(axes, names, classifier, "f1", theme)
    axes.set_xlabel("F1 on test")
    entries = (
        ("threshold chosen on validation", theme.first, "o", theme.first),
        ("threshold 0.5", theme.second, "s", theme.paper),
        ("everything called positive", theme.muted, "|", theme.muted),
    )
    _add_legend(figure, theme, entries)
    return figure


def _by_metric(evaluation: Evaluation, metric: str) -> list[str]:
    """Macro first, then by decreasing metric; undefined ones last, in their own order."""
    values = {name: entry.metrics[metric].value for name, entry in evaluation.per_class.items()}
    order = sorted(values, key=lambda n: (values[n] is None, -(values[n] or 0.0)))
    return [MACRO, *order]


def _estimate(evaluation: Evaluation, name: str, metric: str) -> Estimate:
    found = evaluation.macro if name == MACRO else evaluation.per_class[name].metrics
    return found[metric]


def _pathology_rows(names: list[str], evaluation: Evaluation, theme: Theme) -> tuple[Figure, Axes]:
    """Return a figure with a row per name, and the number of positive images beside each."""
    shown = [shown_name(name) for name in names]
    left = max(PATHOLOGIES.left, *(text_width_in(name) + 0.2 for name in shown))
    figure, (axes,) = replace(PATHOLOGIES, left=left).panels(len(names))
    label_rows(axes, shown)
    axes.axhline(len(names) - 1.5, color=theme.muted, linewidth=0.8)
    right = _beside(axes, theme) | {"ha": "right"}
    axes.text(1.105, len(names) - 1, "positives", **right)
    for height, name in list(zip(heights_of(names), names, strict=True))[1:]:
        entry = evaluation.per_class[name]
        axes.text(1.095, height, f"{entry.num_positive:,}", **right)
        if entry.warning:
            axes.text(1.097, height, "*", **_beside(axes, theme))
    return figure, axes


def _note_undefined(
    axes: Axes, names: list[str], evaluation: Evaluation, metric: str, theme: Theme
) -> None:
    for height, name in zip(heights_of(names), names, strict=True):
        found = _estimate(evaluation, name, metric)
        if found.value is None:
            style = _beside(axes, theme) | {"style": "italic"}
            axes.text(0.01, height, f"undefined: {found.reason}", **style)


def _beside(axes: Axes, theme: Theme) -> dict[str, Any]:
    look = {"ha": "left", "va": "center", "fontsize": SMALL_PT, "color": theme.muted}
    return {"transform": axes.get_yaxis_transform(), **look}


def _add_legend(
    figure: Figure, theme: Theme, entries: tuple[tuple[str, str, str, str], ...]
) -> None:
    """Add a legend of label, colour, marker and colour inside the marker."""
    handles = [
        Line2D(
            [], [], linestyle="", marker=marker, color=colour, markerfacecolor=face, label=label,
            markersize=9 if marker == "|" else 5.5, markeredgewidth=1.4,
        )
        for label, colour, marker, face in entries
    ]  # fmt: skip
    figure.legend(
        handles=handles,
        loc="upper left",
        ncols=len(handles),
        borderaxespad=0,
        bbox_to_anchor=(PATHOLOGIES.left / WIDTH_IN, 1 - 0.12 / figure.get_size_inches()[1]),
        handletextpad=0.3,
        columnspacing=2.0,
        labelcolor=theme.ink,
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
    figure, (left, right) = MODELS.panels(len(rivals), 2)
    line, dot = {"linewidth": 1.8}, {"markersize": 5.4, "markeredgewidth": 1.3}
    own = dot | {"marker": "o", "markerfacecolor": theme.first}
    other = dot | {"marker": "s", "markerfacecolor": theme.paper}
    for row, (height, rival) in enumerate(zip(heights_of(rivals), rivals, strict=True)):
        colour, look = (theme.second, other) if row else (theme.first, own)
        draw_estimate(left, rival.auroc, height, colour, line, look)
        if rival.lead is not None:
            draw_estimate(right, rival.lead, height, theme.first, line, own)
    label_rows(left, [rival.name for rival in rivals])
    label_rows(right, rivals, are_labelled=False)
    for axes, level, title, unit in (
        (left, CHANCE, "Macro AUROC", "test, with 95 % interval; dashed: chance"),
        (right, 0.0, "The classifier's lead in macro AUROC", "paired, with 95 % interval"),
    ):
        axes.axvline(level, color=theme.muted, **DASHED)
        axes.margins(x=0.06)
        axes.set_title(title)
        axes.set_xlabel(unit)
    return figure


def draw_subgroups(
    subgroups: dict[str, Subgroup], theme: Theme, *, everyone: str = EVERYONE
) -> Figure:
    """Draw AUROC, false-positive and false-negative rate, a row per group.

    Args:
        subgroups: By name, all images first.
        theme: Colours.
        everyone: What all images are called.
    """
    figure, panels = GROUPS.panels(len(subgroups), len(GROUP_PANELS))
    names = [everyone if name == EVERYONE else name for name in subgroups]
    sizes = [group.num_images for group in subgroups.values()]
    labels = [f"{name}  ({size:,})" for name, size in zip(names, sizes, strict=True)]
    for axes, (score, title, unit) in zip(panels, GROUP_PANELS, strict=True):
        _draw_groups(axes, [getattr(group, score) for group in subgroups.values()], theme)
        label_rows(axes, labels, SMALL_PT, are_labelled=axes is panels[0])
        axes.set_title(title)
        axes.set_xlabel(unit)
    if EVERYONE not in subgroups:
        panels[0].get_yticklabels()[0].set_fontweight("normal")
    return figure


def _draw_groups(axes: Axes, estimates: list[Estimate], theme: Theme) -> None:
    axes.set(xlim=(-0.02, 1.02), xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.set_xticklabels(["0", "0.25", "0.5", "0.75", "1"], fontsize=FONT_PT - 1)
    axes.axhline(len(estimates) - 1.5, color=theme.muted, linewidth=0.8)
    if estimates[0].value is not None:
        axes.axvline(estimates[0].value, color=theme.muted, **DASHED)
    dot = {"marker": "o", "markersize": 4.6, "clip_on": False}
    for row, (height, estimate) in enumerate(zip(heights_of(estimates), estimates, strict=True)):
        colour = theme.first if row else theme.ink
        draw_estimate(axes, estimate, height, colour, {"linewidth": 1.5}, dot)


def heights_of(rows: Sequence[object]) -> range:
    """Return the height of each row, the first on top."""
    return range(len(rows) - 1, -1, -1)


def label_rows(
    axes: Axes, rows: Sequence[object], size: float = FONT_PT, *, are_labelled: bool = True
) -> None:
    """Give each row its label, the first in bold, and the panel the look that all share."""
    labels = [str(row) for row in rows] if are_labelled else []
    axes.set_yticks(np.array(heights_of(rows)), labels)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.tick_params(axis="y", length=0, labelsize=size, pad=8)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    if labels:
        axes.get_yticklabels()[0].set_fontweight("bold")


def draw_estimate(
    axes: Axes, estimate: Estimate, height: float, colour: str, line: dict[str, Any],
    dot: dict[str, Any],
) -> None:  # fmt: skip
    """Draw a dot on the line of its interval."""
    if estimate.value is None:
        return
    if estimate.interval is not None:
        axes.plot(estimate.interval, [height] * 2, color=colour, **line)
    axes.plot(estimate.value, height, color=colour, **dot)
