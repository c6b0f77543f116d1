"""How training went, epoch by epoch."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxrmodel.report.figures.theme import WIDTH_IN, Theme, new_figure, place

LEFT_IN, GAP_IN, HEIGHT_IN = 0.72, 0.85, 2.35
PANELS = (  # history, its column without the prefix, title, unit
    ("vae", "l1", "Autoencoder: error", "L1 (grey level, of 1)"),
    ("vae", "kl_nats", "Autoencoder: KL", "KL (nats)"),
    ("classifier", "loss", "Classifier: loss", "cross-entropy (nats)"),
)


def draw_training_curves(vae: pd.DataFrame, classifier: pd.DataFrame, theme: Theme) -> Figure:
    """Draw error and KL of the autoencoder and the loss of the classifier.

    Args:
        vae: A row an epoch: `epoch`, and `train_` and `val_` of `l1` and `kl_nats`.
        classifier: A row an epoch: `epoch`, `train_loss`, `val_loss`.
        theme: Colours.
    """
    figure = new_figure(HEIGHT_IN + 1.0)
    width = (WIDTH_IN - LEFT_IN - 0.1 - 2 * GAP_IN) / len(PANELS)
    histories = {"vae": vae, "classifier": classifier}
    for number, (history, name, title, unit) in enumerate(PANELS):
        axes = place(figure, LEFT_IN + number * (width + GAP_IN), 0.4, width, HEIGHT_IN)
        _draw_pair(axes, histories[history], name, theme)
        axes.set_title(title)
        axes.set_ylabel(unit)
        axes.set_xlabel("epoch")
    return figure


def _draw_pair(axes: Axes, history: pd.DataFrame, name: str, theme: Theme) -> None:
    parts = (
        ("train", "train", theme.first, "-", "o", theme.first),
        ("val", "validation", theme.second, "--", "s", theme.paper),
    )
    markers = len(history) <= 30  # noqa: PLR2004
    for part, label, colour, line, marker, face in parts:
        axes.plot(
            history["epoch"],
            pd.to_numeric(history[f"{part}_{name}"]),  # all None without a validation image
            line,
            color=colour,
            label=label,
            linewidth=1.6,
            marker=marker if markers else None,
            markersize=4.2,
            markerfacecolor=face,
            markeredgewidth=1.2,
        )
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.margins(y=0.12)
    axes.legend(loc="best", handlelength=2.6)
