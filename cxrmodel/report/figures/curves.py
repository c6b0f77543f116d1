"""How training went, epoch by epoch."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxrmodel.report.figures.theme import WIDTH_IN, Theme, new_figure, place

LEFT_IN, GAP_IN, HEIGHT_IN = 0.72, 0.85, 2.35
ROW_IN = HEIGHT_IN + 1.0
MOST_MARKERS = 30
PAIRS = (  # history, its column without the prefix, title, unit
    ("vae", "l1", "Autoencoder: error", "L1 (grey level, of 1)"),
    ("vae", "kl_nats", "Autoencoder: KL", "KL (nats)"),
    ("classifier", "loss", "Classifier: loss", "mean loss (nats)"),
)
SINGLE = (  # column of the autoencoder's history, title, unit
    ("posterior_variance", "Autoencoder: variance of z", "posterior variance"),
    ("active_units", "Autoencoder: active units", "dimensions"),
    ("lr_millionths", "Autoencoder: learning rate", "learning rate (millionths)"),
)


def draw_training_curves(vae: pd.DataFrame, classifier: pd.DataFrame, theme: Theme) -> Figure:
    """Draw error and KL of the autoencoder, the loss of the classifier, and below what tells why.

    Args:
        vae: A row an epoch: `epoch`, `train_` and `val_` of `l1` and `kl_nats`, and
            `posterior_variance`, `active_units` and `lr`.
        classifier: A row an epoch: `epoch`, `train_loss`, `val_loss`.
        theme: Colours.
    """
    figure = new_figure(2 * ROW_IN)
    vae = vae.assign(lr_millionths=1e6 * vae["lr"])
    histories = {"vae": vae, "classifier": classifier}
    for column, (history, name, title, unit) in enumerate(PAIRS):
        axes = _panel(figure, 0, column, title, unit)
        _draw_pair(axes, histories[history], name, theme)
    for column, (name, title, unit) in enumerate(SINGLE):
        axes = _panel(figure, 1, column, title, unit)
        _draw_line(axes, vae, name, theme)
    return figure


def _panel(figure: Figure, row: int, column: int, title: str, unit: str) -> Axes:
    width = (WIDTH_IN - LEFT_IN - 0.1 - 2 * GAP_IN) / len(PAIRS)
    left = LEFT_IN + column * (width + GAP_IN)
    axes = place(figure, left, 0.4 + row * ROW_IN, width, HEIGHT_IN)
    axes.set_title(title)
    axes.set_ylabel(unit)
    axes.set_xlabel("epoch")
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.margins(y=0.12)
    return axes


def _draw_pair(axes: Axes, history: pd.DataFrame, name: str, theme: Theme) -> None:
    parts = (
        ("train", "train", theme.first, "-", "o", theme.first),
        ("val", "validation", theme.second, "--", "s", theme.paper),
    )
    for part, label, colour, style, marker, face in parts:
        _draw_line(
            axes, history, f"{part}_{name}", theme, label=label, color=colour, linestyle=style,
            marker=marker, markerfacecolor=face,
        )  # fmt: skip
    axes.legend(loc="best", handlelength=2.6)


def _draw_line(axes: Axes, history: pd.DataFrame, name: str, theme: Theme, **look: Any) -> None:
    look = {"color": theme.first, "marker": "o"} | look
    if len(history) > MOST_MARKERS:
        look["marker"] = ""
    values = pd.to_numeric(history[name])
    if values.isna().all():  # without a validation image
        axes.set_ylim(0, 1)
    axes.plot(history["epoch"], values, linewidth=1.6, markersize=4.2, markeredgewidth=1.2, **look)
