"""What the latents mean, as images: drawn at random, changed one by one, and near each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cxrmodel.config import ReportConfig
from cxrmodel.evaluation.resolution import shrink, to_unit
from cxrmodel.models.posterior import AggregatePosterior
from cxrmodel.models.vae import VAE
from cxrmodel.report.figures.theme import (
    SMALL_PT,
    WIDTH_IN,
    Theme,
    fitting_size,
    new_figure,
    place,
    shown_name,
)
from cxrmodel.report.run import Run
from cxrmodel.training.devices import resolve_device
from cxrmodel.training.encoding import Coder

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

NUM_SAMPLES = 6
NUM_TRAVERSED = 5
STEPS = (-3, -2, -1, 0, 1, 2, 3)
NUM_QUERIES, NUM_NEIGHBOURS = 3, 5
SEARCHED_ROWS = 8_192  # at once, so that memory stays bounded
PANEL_PX = 256
GAP_IN, QUERY_GAP_IN, TITLE_IN, TOP_IN, LABEL_IN = 0.06, 0.3, 0.36, 0.06, 0.95
MAX_PANEL_IN = 1.5

Latents = NDArray[np.float64]


@dataclass(frozen=True)
class ImageRow:
    """Images beside each other.

    Attributes:
        images: (F, s, s), float32 in [0, 1].
        label: Of the row; may be empty.
        titles: Of each image; may be empty, then no image has one.
        is_query: The others are neighbours of the first image; a gap sets it apart.
    """

    images: NDArray[np.float32]
    label: str = ""
    titles: list[str] = field(default_factory=list)
    is_query: bool = False


def sample_rows(vae: VAE, aggregate: AggregatePosterior, *, seed: int) -> list[ImageRow]:
    """Decode latents drawn at random from the aggregate posterior, in one row."""
    latents = aggregate.sample(NUM_SAMPLES, np.random.default_rng(seed))
    return [ImageRow(_decode(vae, latents))]


def _decode(vae: VAE, latents: Latents) -> NDArray[np.float32]:
    """Return the (B, s, s) images of (B, Z) latents, one at a time, as small as they are shown."""
    coder = Coder(vae, resolve_device("cpu"), "float32")
    rows = torch.from_numpy(latents.astype(np.float32))
    images = [shrink(coder.decode(row[None])[:, 0].numpy(), PANEL_PX) for row in rows]
    return np.concatenate(images)


def traversal_rows(vae: VAE, aggregate: AggregatePosterior) -> list[ImageRow]:
    """Return a row per latent dimension that varies most, decoded as it is changed."""
    rows = []
    for number, dimension in enumerate(most_varied(aggregate)):
        titles = [f"{step:+d} sd" if step else "mean" for step in STEPS] if number == 0 else []
        label = f"z{dimension}\nsd {aggregate.mu_std[dimension]:.2f}"
        rows.append(ImageRow(_decode(vae, traverse(aggregate, dimension)), label, titles))
    return rows


def most_varied(aggregate: AggregatePosterior) -> list[int]:
    """Return the dimensions whose posterior mean varies most between images, at most five."""
    order = np.argsort(-aggregate.mu_std, kind="stable")
    return [int(dimension) for dimension in order[:NUM_TRAVERSED]]


def traverse(aggregate: AggregatePosterior, dimension: int) -> Latents:
    """Return the mean latent (7, Z) with one dimension moved by -3 to 3 standard deviations of mu.

    The mean of the aggregate posterior is the mean of mu over the same images.
    """
    latents = np.tile(aggregate.mean, (len(STEPS), 1))
    latents[:, dimension] += np.array(STEPS) * aggregate.mu_std[dimension]
    return latents


def neighbour_rows(config: ReportConfig, mu: Latents, run: Run, pixels: Pixels) -> list[ImageRow]:
    """Return a row per drawn test image, with its nearest train images by latent."""
    images = run.images
    names, patients = images["image"].to_numpy(), images["patient_id"].to_numpy(dtype=object)
    split = images["split"].to_numpy()
    of_train, of_test = np.flatnonzero(split == "train"), np.flatnonzero(split == "test")
    drawn = np.random.default_rng(config.seed).permutation(of_test)[:NUM_QUERIES]
    found = []
    for query in drawn:
        near = nearest_of_others(
            mu[query], patients[query], mu[of_train], patients[of_train], NUM_NEIGHBOURS
        )
        rows = [query, *of_train[near]]
        shown = shrink(to_unit(pixels.read(pixels.rows_of(names[rows].tolist()))), PANEL_PX)
        found.append(ImageRow(shown, titles=[_title(run, row) for row in rows], is_query=True))
    return found


def nearest_of_others(
    query: Latents, query_patient: object, mu: Latents, patients: NDArray[np.object_], count: int
) -> NDArray[np.int64]:
    """Return the rows of the nearest latents, none of them of the same patient.

    Args:
        query: (Z,).
        query_patient: Whose image the query is.
        mu: (M, Z).
        patients: (M,).
        count: How many rows to return at most.
    """
    starts = range(0, len(mu), SEARCHED_ROWS)
    distances = np.concatenate(
        [np.linalg.norm(mu[start : start + SEARCHED_ROWS] - query, axis=1) for start in starts]
    )
    distances[patients == query_patient] = np.inf
    order = np.argsort(distances, kind="stable")[:count]
    return np.asarray(order[np.isfinite(distances[order])])


def _title(run: Run, row: int) -> str:
    """Name an image with the findings that are listed for it, where anything is labelled."""
    entry = run.images.iloc[row]
    known = entry[list(run.labels)].dropna()
    listed = [str(name) for name in known.index[known == 1]]
    shown = shown_name(listed[0]) if listed else "none listed" if len(known) else "not labelled"
    more = f" +{len(listed) - 1}" if len(listed) > 1 else ""
    name = str(entry["image"]).removesuffix(".png")
    return f"{name}\n{shown}{more}" if run.labels else name


def draw_image_grid(rows: list[ImageRow], theme: Theme) -> Figure:
    """Draw the rows below each other, each image as large as the page allows.

    Args:
        rows: At least one, with equally many images.
        theme: Colours.
    """
    left = LABEL_IN if any(row.label for row in rows) else 0.0
    num_columns = max(len(row.images) for row in rows)
    apart = QUERY_GAP_IN if rows[0].is_query else 0.0
    panel = min(MAX_PANEL_IN, (WIDTH_IN - left - apart) / num_columns - GAP_IN)
    above = [TITLE_IN if any(row.titles) else 0.0 for row in rows]
    figure = new_figure(TOP_IN + sum(above) + len(rows) * (panel + GAP_IN))
    top = TOP_IN
    for row, title_room in zip(rows, above, strict=True):
        top += title_room
        for column, image in enumerate(shrink(row.images, PANEL_PX)):
            across = left + column * (panel + GAP_IN) + (apart if column else 0.0)
            axes = place(figure, across, top, panel, panel)
            _show(axes, image, row.titles[column] if row.titles else "", panel)
            if column == 0 and row.label:
                where: dict[str, Any] = {"ha": "right", "va": "center", "transform": axes.transAxes}
                axes.text(-0.06, 0.5, row.label, fontsize=SMALL_PT, color=theme.ink, **where)
        top += panel + GAP_IN
    return figure


def _show(axes: Axes, image: NDArray[np.float32], title: str, panel_in: float) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    size = fitting_size(title, panel_in, SMALL_PT - 0.9)
    axes.set_title(title, fontsize=size, fontweight="normal", pad=3)
