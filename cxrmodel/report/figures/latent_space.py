"""A map of the latents, and how much each of their dimensions carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.manifold import TSNE, trustworthiness
from threadpoolctl import threadpool_limits

from cxrmodel.report.figures.theme import WIDTH_IN, Theme, new_figure, place

MIN_POINTS = 5
MIN_SPREAD = 1e-15  # of the widest dimension, as a standard deviation
NEIGHBOURHOODS = 3  # perplexity at most a third of the other points
PANEL_IN = 4.9
PANEL_ASPECTS = (0.5, 0.9)  # height over width: as the map is, within reason
NUM_TURNS = 20
MAX_CHECKED, NUM_CHECKED_NEIGHBOURS = 2_000, 10
# Points that together look smaller than the angle act as one. This takes half the time of
# scikit-learn's angle of 0.5 and 1,000 steps, and as many neighbours stay together.
ANGLE, NUM_STEPS = 0.8, 750


@dataclass(frozen=True)
class LatentMap:
    """A t-SNE of N latents.

    Attributes:
        points: (N, 2), without a unit.
        rows: (N,), rows of the latents that were drawn.
        perplexity: As used.
        trustworthiness: Of the neighbours on the map, 1 where all are neighbours among the
            latents too; of at most 2,000 points.
    """

    points: NDArray[np.float32]
    rows: NDArray[np.int64]
    perplexity: float
    trustworthiness: float


def usable_perplexity(perplexity: float, num_points: int) -> float:
    """Lower a perplexity to a third of the other points, the neighbours that t-SNE looks up."""
    return min(perplexity, (num_points - 1) / NEIGHBOURHOODS)


def map_latents(
    mu: NDArray[np.float32], *, max_points: int, perplexity: float, seed: int
) -> LatentMap | None:
    """Embed latents in two dimensions; None where there are fewer than five, or all are the same.

    Sources: L. van der Maaten, G. Hinton, Visualizing Data using t-SNE, JMLR 9 (2008);
    J. Venna, S. Kaski, Neighborhood preservation in nonlinear projection methods, ICANN 2001, for
    the trustworthiness.

    Args:
        mu: (M, Z).
        max_points: More rows than that are drawn from, at random, without replacement.
        perplexity: Wanted perplexity.
        seed: Seed of the draw and of the embedding.
    """
    if len(mu) < MIN_POINTS:
        return None
    count = min(len(mu), max_points)
    rows = np.random.default_rng(seed).permutation(len(mu))[:count]
    if mu[rows].std(axis=0, dtype=np.float64).max() < MIN_SPREAD:
        return None  # scikit-learn would divide by it, and end the process by a segmentation fault
    used = usable_perplexity(perplexity, count)
    start = "pca" if mu.shape[1] > 1 else "random"
    embedding = TSNE(
        perplexity=used, init=start, angle=ANGLE, max_iter=NUM_STEPS, random_state=seed
    )
    # Other computations use the other cores. Sums of more than two threads would also round in the
    # order in which they end: another map each time.
    with threadpool_limits(limits=1, user_api="openmp"):
        points = embedding.fit_transform(mu[rows])
    checked = slice(0, MAX_CHECKED)  # the rows are in random order
    num_neighbours = min(NUM_CHECKED_NEIGHBOURS, (len(rows[checked]) - 1) // 2)
    trust = trustworthiness(mu[rows[checked]], points[checked], n_neighbors=num_neighbours)
    return LatentMap(np.asarray(points, dtype=np.float32), rows, used, float(trust))


def draw_latent_map(
    latent_map: LatentMap, colourings: dict[str, dict[str, NDArray[np.bool_]]], theme: Theme
) -> Figure:
    """Draw the map once per colouring, two beside each other.

    Args:
        latent_map: Of N points.
        colourings: Title, and the members of at most three groups, each (N,).
        theme: Colours.
    """
    num_rows = -(-len(colourings) // 2)
    spread = np.ptp(latent_map.points, axis=0)
    height = PANEL_IN * float(np.clip(spread[1] / max(spread[0], 1e-9), *PANEL_ASPECTS))
    figure = new_figure(num_rows * (height + 0.8) + 0.05)
    for number, (title, groups) in enumerate(colourings.items()):
        row, column = divmod(number, 2)
        left = 0.05 + column * (WIDTH_IN - PANEL_IN - 0.1)
        axes = place(figure, left, 0.35 + row * (height + 0.8), PANEL_IN, height)
        _scatter(axes, latent_map.points, groups, title, theme)
    return figure


def _scatter(
    axes: Axes,
    points: NDArray[np.float32],
    groups: dict[str, NDArray[np.bool_]],
    title: str,
    theme: Theme,
) -> None:
    looks = zip((theme.first, theme.second, theme.third), ("o", "^", "s"), strict=True)
    size = float(np.clip(6000 / len(points), 3, 26))
    handles = []
    for (name, members), (colour, marker) in zip(groups.items(), looks, strict=False):
        look: dict[str, Any] = {"c": colour, "marker": marker, "linewidths": 0}
        # In turns, since the group drawn last would hide the others.
        for turn, part in enumerate(np.array_split(np.flatnonzero(members), NUM_TURNS)):
            axes.scatter(
                points[part, 0], points[part, 1], s=size, alpha=0.75, zorder=2 + turn, **look
            )
        if members.any():
            label = f"{name} ({members.sum():,})"
            handles.append(axes.scatter([], [], s=30, label=label, **look))
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(visible=True, color=theme.grid)
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.005),
        ncols=3,
        handletextpad=0.2,
        columnspacing=1.4,
    )


def draw_kl_per_dimension(
    kl: NDArray[np.float64], aggregate: NDArray[np.float64], theme: Theme
) -> Figure:
    """Draw the KL of each latent dimension, in nats, by decreasing size.

    Args:
        kl: (Z,), nats, mean over test images.
        aggregate: (Z,), nats, of the aggregate posterior.
        theme: Colours.
    """
    order = np.argsort(-kl, kind="stable")
    places = np.arange(1, len(kl) + 1)
    figure = new_figure(2.7)
    axes = place(figure, 0.75, 0.15, WIDTH_IN - 0.9, 1.95)
    axes.bar(places, kl[order], width=0.72, color=theme.first, label="images, mean")
    label = "all images together"
    axes.bar(places, aggregate[order], width=0.36, color=theme.second, label=label)
    axes.legend(loc="best")
    axes.set_xlim(0.3, len(kl) + 0.7)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=14))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.set_xlabel("latent dimension, by decreasing KL")
    axes.set_ylabel("KL (nats)")
    return figure
