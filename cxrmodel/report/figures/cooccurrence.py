"""Which findings come together, in the labels and in what is called positive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.report.figures.theme import SMALL_PT, WIDTH_IN, Theme, contrast, new_figure, place

LEFT_IN, GAP_IN, TOP_IN, BOTTOM_IN = 1.75, 0.3, 0.42, 1.4
UNDEFINED = "\u2013"


@dataclass(frozen=True)
class Cooccurrence:
    """Of the test images with a finding, the share that have another one as well.

    Attributes:
        names: C pathologies.
        counts: (C,), test images labelled with each.
        labelled: (C, C), share of the row's images that are labelled with the column's pathology.
        called: (C, C), share that are called positive for it; its diagonal is the sensitivity.
            NaN where no image is labelled, or the column has no threshold.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    labelled: NDArray[np.float64]
    called: NDArray[np.float64]


def count_cooccurrence(test: Predictions, thresholds: dict[str, float | None]) -> Cooccurrence:
    """Count what is labelled and what is called together.

    Args:
        test: Predictions of the test images.
        thresholds: By pathology, from validation; a probability equal to it is positive.
    """
    limits = np.array([thresholds[name] for name in test.pathologies], dtype=np.float64)
    labels = test.labels.astype(np.float64)  # (N, C)
    called = (test.probabilities >= limits).astype(np.float64)
    called[:, np.isnan(limits)] = np.nan
    counts = test.labels.sum(axis=0, dtype=np.int64)
    with np.errstate(invalid="ignore"):
        shares = [labels.T @ other / counts[:, None] for other in (labels, called)]
    return Cooccurrence(test.pathologies, counts, *shares)


def draw_cooccurrence(found: Cooccurrence, theme: Theme) -> Figure:
    """Draw both matrices beside each other, in per cent.

    Args:
        found: To draw.
        theme: Colours; one hue from the paper's colour on, so that grey shows it as well.
    """
    side = (WIDTH_IN - LEFT_IN - GAP_IN - 0.1) / 2
    figure = new_figure(TOP_IN + side + BOTTOM_IN)
    panels = (("Also labelled, %", found.labelled), ("Called positive, %", found.called))
    for number, (title, shares) in enumerate(panels):
        axes = place(figure, LEFT_IN + number * (side + GAP_IN), TOP_IN, side, side)
        _fill(axes, shares, theme)
        axes.set_title(title)
        names = [name.replace("_", " ") for name in found.names]
        axes.set_xticks(range(len(names)), names, rotation=90)
        rows = [f"{name}  ({count:,})" for name, count in zip(names, found.counts, strict=True)]
        axes.set_yticks(range(len(names)), rows if number == 0 else [])
    return figure


def _fill(axes: Axes, shares: NDArray[np.float64], theme: Theme) -> None:
    colours = LinearSegmentedColormap.from_list("share", [theme.paper, theme.first])
    axes.imshow(shares, cmap=colours, vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
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
