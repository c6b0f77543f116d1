"""The figures that show images, and the map of their latents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.config import ReportConfig
from cxrmodel.evaluation.audit.strata import AGE_BANDS, AGE_NAMES, strata_of
from cxrmodel.evaluation.resolution import to_unit
from cxrmodel.models.vae import VAE
from cxrmodel.report.chosen import Chosen, choose_films
from cxrmodel.report.figures.latent_space import draw_latent_map, map_latents
from cxrmodel.report.figures.reconstructions import (
    MAX_COLUMNS,
    Examples,
    compare_image,
    draw_reconstructions,
    error_limit,
    join_examples,
)
from cxrmodel.report.films import ErrorScale
from cxrmodel.report.inputs import RunInputs, RunRecord, RunTables
from cxrmodel.report.latent_pictures import draw_latent_pictures
from cxrmodel.report.pictures import Gallery
from cxrmodel.report.results import Results
from cxrmodel.training.encoding import load_vae, reconstruct

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

ALL_CLASSES_COLUMNS = 7


def draw_images(
    config: ReportConfig, inputs: RunInputs, record: RunRecord, tables: RunTables,
    results: Results, pixels: Pixels, gallery: Gallery,
) -> list[Examples]:  # fmt: skip
    """Draw reconstructions of test images, and what the latents mean.

    Returns:
        What was reconstructed, empty without a test image.
    """
    vae = load_vae(inputs.vae)
    chosen = choose_films(config, tables, record.fit)
    parts = {name: _reconstruct(films, vae, pixels) for name, films in chosen.items()}
    if parts:
        draw_films(parts, gallery)
    draw_latent_pictures(config, vae, tables, results, pixels, gallery)
    return list(parts.values())


def draw_films(parts: dict[str, Examples], gallery: Gallery) -> None:
    """Draw strips of films whose error maps share one scale."""
    limit = error_limit(parts.values())
    for name, examples in parts.items():
        _write_figure(name, examples, limit, gallery)
    gallery.add_films(parts, ErrorScale(limit))


def _write_figure(name: str, examples: Examples, limit: float, gallery: Gallery) -> None:
    columns = ALL_CLASSES_COLUMNS if name == "one_a_class" else MAX_COLUMNS
    gallery.write(
        name, lambda theme: draw_reconstructions(examples, limit, theme, max_columns=columns)
    )


def _reconstruct(chosen: list[Chosen], vae: VAE, pixels: Pixels) -> Examples:
    """Reconstruct images; one at a time is read, since at full size they are large."""
    parts = []
    for film in chosen:
        original = pixels.read(pixels.rows_of([film.image]))  # (1, S, S)
        decoded = reconstruct(vae, original, device="cpu")  # the same pixels on every machine
        parts.append(compare_image(film, to_unit(original)[0], decoded[0]))
    return join_examples(parts)


def draw_map(config: ReportConfig, tables: RunTables, gallery: Gallery) -> None:
    """Draw a t-SNE of the latents."""
    latent_map = map_latents(
        tables.latents.filter(regex=r"^mu_\d+$").to_numpy(dtype=np.float32),
        max_points=config.tsne_points,
        perplexity=config.tsne_perplexity,
        seed=config.seed,
    )
    if latent_map is None:
        return
    drawn = tables.images.iloc[latent_map.rows]
    colourings = _colourings(drawn)
    alt = (
        f"t-SNE of {len(drawn):,} latents, coloured by whether a finding is listed, by view, by "
        f"sex and by age; perplexity {latent_map.perplexity:.3g}, trustworthiness "
        f"{latent_map.trustworthiness:.3f} among 10 neighbours."
    )
    gallery.add("latent_space", alt, lambda theme: draw_latent_map(latent_map, colourings, theme))


def _colourings(drawn: pd.DataFrame) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Return the groups of each panel of the map; what is not known is its own group."""
    abnormal = drawn["any_abnormal"].to_numpy(dtype=bool)
    strata = strata_of(drawn)
    found = {"By finding": {"no listed finding": ~abnormal, "any listed finding": abnormal}}
    for kind, levels in (("view", ("PA", "AP")), ("sex", ("F", "M"))):
        found[f"By {kind}"] = {level: np.asarray(strata[kind] == level) for level in levels}
    ages = strata["age"]
    old, known = np.asarray(ages == AGE_NAMES[-1]), np.asarray(drawn["age"].notna(), dtype=bool)
    found["By age"] = {f"under {AGE_BANDS[-1]}": known & ~old, AGE_NAMES[-1]: old}
    for title, groups in found.items():
        rest = ~np.logical_or.reduce(list(groups.values()))
        if rest.any():
            groups[f"{title.removeprefix('By ')} unknown"] = rest
    return found
