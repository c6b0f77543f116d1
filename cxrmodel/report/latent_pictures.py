"""What the latents mean: drawn at random, changed one by one, and near each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cxrmodel.config import ReportConfig
from cxrmodel.evaluation.autoencoder import latent_columns
from cxrmodel.evaluation.resolution import shrink, to_unit
from cxrmodel.models.posterior import AggregatePosterior
from cxrmodel.models.vae import VAE
from cxrmodel.report.figures.film_grid import PANEL_PX, FilmRow, draw_film_grid
from cxrmodel.report.inputs import RunTables
from cxrmodel.report.pictures import Gallery
from cxrmodel.report.results import Results
from cxrmodel.training.devices import resolve_device
from cxrmodel.training.encoding import Coder

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

NUM_SAMPLES = 6
NUM_TRAVERSED = 5
STEPS = (-3, -2, -1, 0, 1, 2, 3)
NUM_QUERIES, NUM_NEIGHBOURS = 3, 5
SEARCHED_ROWS = 8_192  # at once, so that memory stays bounded

Latents = NDArray[np.float64]


def draw_latent_pictures(
    config: ReportConfig,
    vae: VAE,
    tables: RunTables,
    results: Results,
    pixels: Pixels,
    gallery: Gallery,
) -> None:
    """Draw samples, traversals and nearest neighbours.

    Samples and traversals are of the aggregate posterior of the train images: where it is far from
    the prior, the decoder was trained on no latent near the prior's.
    """
    aggregate = results.autoencoder.aggregate
    if aggregate is not None:
        rng = np.random.default_rng(config.seed)
        row = FilmRow("", [], decode(vae, aggregate.sample(NUM_SAMPLES, rng)))
        alt = f"{NUM_SAMPLES} images decoded from latents drawn like those of the train images."
        gallery.add("samples", alt, lambda theme: draw_film_grid([row], theme), is_photograph=True)
        rows = _traverse(vae, aggregate)
        alt = f"Images decoded from the mean latent, with one of {len(rows)} dimensions changed."
        gallery.add(
            "traversals", alt, lambda theme: draw_film_grid(rows, theme), is_photograph=True
        )
    if not (tables.images["split"] == "test").any():
        return
    mu = latent_columns(tables.latents, "mu")
    neighbours = _find_neighbours(config, mu, tables, pixels)
    alt = f"{len(neighbours)} test images, each with its nearest train images by latent."
    gallery.add(
        "neighbours", alt, lambda theme: draw_film_grid(neighbours, theme), is_photograph=True
    )


def decode(vae: VAE, latents: Latents) -> NDArray[np.float32]:
    """Return the (B, s, s) films of (B, Z) latents, one at a time, as small as they are shown."""
    coder = Coder(vae, resolve_device("cpu"), "float32")
    rows = torch.from_numpy(latents.astype(np.float32))
    films = [shrink(coder.decode(row[None])[:, 0].numpy(), PANEL_PX) for row in rows]
    return np.concatenate(films)


def _traverse(vae: VAE, aggregate: AggregatePosterior) -> list[FilmRow]:
    rows = []
    for number, dimension in enumerate(most_varied(aggregate)):
        titles = [f"{step:+d} sd" if step else "mean" for step in STEPS] if number == 0 else []
        films = decode(vae, traverse(aggregate, dimension))
        rows.append(FilmRow(f"z{dimension}\nsd {aggregate.mu_std[dimension]:.2f}", titles, films))
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
    distances = np.concatenate(
        [
            np.linalg.norm(mu[start : start + SEARCHED_ROWS] - query, axis=1)
            for start in range(0, len(mu), SEARCHED_ROWS)
        ]
    )
    distances[patients == query_patient] = np.inf
    order = np.argsort(distances, kind="stable")[:count]
    return np.asarray(order[np.isfinite(distances[order])])


def _find_neighbours(
    config: ReportConfig, mu: Latents, tables: RunTables, pixels: Pixels
) -> list[FilmRow]:
    images = tables.images
    names, patients = images["image"].to_numpy(), images["patient_id"].to_numpy(dtype=object)
    split = images["split"].to_numpy()
    of_train, of_test = np.flatnonzero(split == "train"), np.flatnonzero(split == "test")
    drawn = np.random.default_rng(config.seed).permutation(of_test)[:NUM_QUERIES]
    found = []
    for row in drawn:
        near = nearest_of_others(
            mu[row], patients[row], mu[of_train], patients[of_train], NUM_NEIGHBOURS
        )
        chosen = [row, *of_train[near]]
        films = shrink(to_unit(pixels.read(pixels.rows_of(names[chosen].tolist()))), PANEL_PX)
        titles = [_title(tables, one) for one in chosen]
        found.append(FilmRow("", titles, films, is_query=True))
    return found


def _title(tables: RunTables, row: int) -> str:
    """Name an image with what is listed for it."""
    entry = tables.images.iloc[row]
    listed = [name for name in tables.classifier["test"].pathologies if entry[name]]
    shown = listed[0].replace("_", " ") if listed else "none listed"
    more = f" +{len(listed) - 1}" if len(listed) > 1 else ""
    return f"{str(entry['image']).removesuffix('.png')}\n{shown}{more}"
