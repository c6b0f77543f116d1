"""How training went, epoch by epoch."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxrmodel.report.figures.theme import WIDTH_IN, Theme, new_figure, place

LEFT_IN, GAP_IN, HEIGHT_IN = 0.72, 0.85, 2.35
ROW_IN = HEIGHT_IN + 1.0
PANELS_PER_ROW = 3
MAX_MARKERS = 30
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
    """Draw error and KL of the autoencoder, the loss of the classifier, and below what explains it.

    Further terms of the autoencoder's objective follow in rows of their own, with its loss.

    Args:
        vae: A row per epoch: `epoch`, `val_l1`, `val_kl_nats`, `posterior_variance`,
            `active_units` and `lr`; each term of the objective has `train_` and `val_` columns.
        classifier: A row per epoch: `epoch`, `train_loss`, `val_loss`; no row where there is
            nothing to classify.
        theme: Colours.
    """
    histories = {"vae": vae.assign(lr_millionths=1e6 * vae["lr"]), "classifier": classifier}
    further = [("vae", name, f"Autoencoder: {name}", name) for name in _further_terms(vae)]
    num_rows = 2 + math.ceil(len(further) / PANELS_PER_ROW)
    figure = new_figure(num_rows * ROW_IN)
    pairs = [pair for pair in PAIRS if len(histories[pair[0]])]
    for column, (history, name, title, unit) in enumerate(pairs):
        axes = _panel(figure, 0, column, title, unit)
        _draw_pair(axes, histories[history], name, theme)
    for column, (name, title, unit) in enumerate(SINGLE):
        axes = _panel(figure, 1, column, title, unit)
        _draw_line(axes, histories["vae"], name, theme)
    for number, (history, name, title, unit) in enumerate(further, 2 * PANELS_PER_ROW):
        axes = _panel(figure, *divmod(number, PANELS_PER_ROW), title, unit)
        _draw_pair(axes, histories[history], name, theme)
    return figure


def _further_terms(vae: pd.DataFrame) -> list[str]:
    """Return the terms of the objective besides L1 and KL, with the loss; none if it has no other.

    The loss of L1 and KL alone looks like the L1.
    """
    trained = [name.removeprefix("train_") for name in vae.columns if name.startswith("train_")]
    names = [name for name in trained if f"val_{name}" in vae.columns]
    others = [name for name in names if name not in ("l1", "kl_nats")]
    return [] if others == ["loss"] else others


def _panel(figure: Figure, row: int, column: int, title: str, unit: str) -> Axes:
    width = (WIDTH_IN - LEFT_IN - 0.1 - (PANELS_PER_ROW - 1) * GAP_IN) / PANELS_PER_ROW
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
        if f"{part}_{name}" in history:  # an objective need not have L1 or KL among its terms
            _draw_line(
                axes, history, f"{part}_{name}", theme, label=label, color=colour, linestyle=style,
                marker=marker, markerfacecolor=face,
            )  # fmt: skip
    axes.legend(loc="best", handlelength=2.6)


def _draw_line(axes: Axes, history: pd.DataFrame, name: str, theme: Theme, **look: Any) -> None:
    look = {"color": theme.first, "marker": "o"} | look
    if len(history) > MAX_MARKERS:
        look["marker"] = ""
    values = pd.to_numeric(history[name])
    if values.isna().all():  # without a validation image
        axes.set_ylim(0, 1)
    axes.plot(history["epoch"], values, linewidth=1.6, markersize=4.2, markeredgewidth=1.2, **look)
