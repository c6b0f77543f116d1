"""What the latents mean: drawn from the prior, changed one by one, and near each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cxrmodel.config import ReportConfig
from cxrmodel.evaluation.autoencoder import latent_columns
from cxrmodel.evaluation.resolution import shrink, to_unit
from cxrmodel.models.vae import VAE
from cxrmodel.report.figures.film_grid import PANEL_PX, FilmRow, draw_film_grid
from cxrmodel.report.inputs import RunTables
from cxrmodel.report.pictures import Gallery
from cxrmodel.report.results import Results
from cxrmodel.training.devices import resolve_device
from cxrmodel.training.encoding import Coder

if TYPE_CHECKING:
    from cxrmodel.data.pixels import Pixels

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
    """Draw prior samples, traversals and nearest neighbours."""
    mu = latent_columns(tables.latents, "mu")
    rng = np.random.default_rng(config.seed)
    samples = decode(vae, rng.normal(size=(NUM_SAMPLES, mu.shape[1])))
    row = FilmRow("", [], samples)
    alt = f"{NUM_SAMPLES} films decoded from latents drawn from the prior."
    gallery.add("samples", alt, lambda theme: draw_film_grid([row], theme), is_photograph=True)
    kl = results.autoencoder.kl_per_dim
    if not len(kl):
        return
    traversals = _traverse(vae, kl)
    alt = f"Films decoded from latents that are zero except for one of {len(traversals)}."
    gallery.add(
        "traversals", alt, lambda theme: draw_film_grid(traversals, theme), is_photograph=True
    )
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


def _traverse(vae: VAE, kl: NDArray[np.float64]) -> list[FilmRow]:
    """Move the dimensions with most KL from -3 to 3, the others at the prior's mean."""
    rows = []
    for number, dimension in enumerate(np.argsort(-kl)[:NUM_TRAVERSED]):
        latents = np.zeros((len(STEPS), len(kl)))
        latents[:, dimension] = STEPS
        titles = [f"{step:+d}" if step else "0" for step in STEPS] if number == 0 else []
        rows.append(
            FilmRow(f"z{dimension}\n{kl[dimension]:.2f} nats", titles, decode(vae, latents))
        )
    return rows


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
