"""Small multiples: each quantity in the reference and in the window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cxrmodel.monitoring.drift import EVERYTHING, Drift
from cxrmodel.monitoring.quantities import LATENTS, PROBABILITIES, Quantity, values_of
from cxrmodel.report.figures.theme import SMALL_PT, WIDTH_IN, Theme, new_figure, place, shown_name

NUM_COLUMNS, MAX_OF_KIND = 5, 8
NUM_BINS = 24
TAILS = (0.5, 99.5)  # percentiles of both sides together, between which the bins lie
GAP_IN, TOP_IN, PANEL_IN, BELOW_IN = 0.22, 0.42, 0.95, 0.4
EFFECTS_IN = 1.9
PER_CENT = 100

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """One quantity.

    Attributes:
        quantity: Which one.
        reference: (N,), values that are known.
        window: Likewise.
        weights: Of both, so that each patient counts once.
        is_drift: It has drifted.
    """

    quantity: Quantity
    reference: Floats
    window: Floats
    weights: tuple[Floats, Floats]
    is_drift: bool


def panels_of(
    reference: pd.DataFrame,
    window: pd.DataFrame,
    quantities: Sequence[Quantity],
    drift: Drift,
) -> list[Panel]:
    """Return the quantities that were tested, those of each kind that differ most."""
    by_name = {quantity.name: quantity for quantity in quantities}
    whole = drift.results[drift.results["source"] == EVERYTHING].set_index("quantity")
    whole = whole[whole.index.isin(list(by_name))]
    panels = []
    for name in map(str, whole.groupby("kind").head(MAX_OF_KIND).index):
        sides = [_known(table, by_name[name]) for table in (reference, window)]
        (values, weights), (its_values, its_weights) = sides
        drifted = bool(whole.loc[name, "is_drift"])
        panels.append(Panel(by_name[name], values, its_values, (weights, its_weights), drifted))
    return panels


def draw_multiples(panels: Sequence[Panel], theme: Theme) -> Figure:
    """Draw a histogram of each number, and two bars of each share."""
    num_rows = -(-len(panels) // NUM_COLUMNS)
    row_in = TOP_IN + PANEL_IN + BELOW_IN
    figure = new_figure(num_rows * row_in)
    width = (WIDTH_IN - (NUM_COLUMNS - 1) * GAP_IN) / NUM_COLUMNS
    for number, panel in enumerate(panels):
        row, column = divmod(number, NUM_COLUMNS)
        axes = place(figure, column * (width + GAP_IN), row * row_in + TOP_IN, width, PANEL_IN)
        (_draw_share if panel.quantity.is_share else _draw_number)(axes, panel, theme)
        axes.set_title(
            shown_name(panel.quantity.name),
            color=theme.second if panel.is_drift else theme.ink,
            fontsize=SMALL_PT + 0.5,
            pad=4,
        )
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    return figure


def draw_effects(results: pd.DataFrame, theme: Theme) -> Figure:
    """Draw how far each latent and each probability has moved, in the order of their names.

    Args:
        results: Of the whole window.
        theme: Colours.
    """
    shown = results[
        results["kind"].isin([LATENTS, PROBABILITIES]) & results["reference"].notna()
    ].sort_values(["kind", "quantity"], kind="stable")
    figure = new_figure(EFFECTS_IN)
    axes = place(figure, 0.75, 0.15, WIDTH_IN - 0.8, EFFECTS_IN - 0.5)
    colours = np.where(shown["is_drift"], theme.second, theme.third)
    axes.bar(np.arange(len(shown)), shown["effect"] * PER_CENT, color=list(colours), width=0.8)
    axes.axhline(0, color=theme.muted, linewidth=0.8)
    firsts = (shown["kind"] != shown["kind"].shift()).to_numpy().nonzero()[0]
    axes.set_xticks(firsts, [str(shown["kind"].iloc[first]) for first in firsts], ha="left")
    axes.set_xlim(-0.8, len(shown) - 0.2)
    limit = max(10.0, float(np.abs(shown["effect"]).max()) * PER_CENT * 1.1)
    axes.set_ylim(-limit, limit)
    axes.set_ylabel("above, less 50 %")
    return figure


def _draw_number(axes: Axes, panel: Panel, theme: Theme) -> None:
    both = np.concatenate([panel.reference, panel.window])
    low, high = np.percentile(both, TAILS)
    edges = np.linspace(low, high if high > low else low + 1, NUM_BINS + 1)
    for values, weights, colour, is_filled in (
        (panel.reference, panel.weights[0], theme.third, True),
        (panel.window, panel.weights[1], theme.first, False),
    ):
        inside = np.clip(values, edges[0], edges[-1])
        shares, _ = np.histogram(inside, edges, weights=weights / weights.sum())
        axes.stairs(shares, edges, fill=is_filled, color=colour, alpha=0.55 if is_filled else 1)
    axes.locator_params(axis="x", nbins=3)


def _draw_share(axes: Axes, panel: Panel, theme: Theme) -> None:
    sides = ((panel.reference, panel.weights[0]), (panel.window, panel.weights[1]))
    shares = [PER_CENT * float(np.average(values, weights=weights)) for values, weights in sides]
    axes.barh([1, 0], shares, color=[theme.third, theme.first], height=0.6)
    most = max(*shares, 1.0)
    for place_, share in zip((1, 0), shares, strict=True):
        axes.text(share + 0.03 * most, place_, f"{share:.1f} %", va="center", fontsize=SMALL_PT)
    axes.set_xlim(0, 1.45 * most)
    axes.set_xticks([])


def _known(table: pd.DataFrame, quantity: Quantity) -> tuple[Floats, Floats]:
    values = values_of(table, [quantity])[:, 0]
    has = ~np.isnan(values)
    patients = table["patient"][has]
    return values[has], 1 / patients.map(patients.value_counts()).to_numpy(np.float64)
