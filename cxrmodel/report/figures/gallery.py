"""The report's figures as files and as inline images of the page, on light and dark paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from cxrmodel.config import ReportConfig
from cxrmodel.evaluation.audit.subgroups import AGE_BANDS, AGE_NAMES, strata_of
from cxrmodel.evaluation.autoencoder import latent_columns
from cxrmodel.evaluation.resolution import to_unit
from cxrmodel.models.vae import VAE
from cxrmodel.report.figures.curves import draw_training_curves
from cxrmodel.report.figures.latent_images import (
    NUM_SAMPLES,
    FilmRow,
    decode,
    draw_film_grid,
    neighbour_rows,
    traversal_rows,
)
from cxrmodel.report.figures.latent_space import draw_kl_per_dimension, draw_latent_map, map_latents
from cxrmodel.report.figures.panels import (
    count_cooccurrence,
    draw_cooccurrence,
    draw_precision_recall,
    draw_reliability,
    draw_roc,
)
from cxrmodel.report.figures.reconstructions import (
    MAX_COLUMNS,
    Chosen,
    Examples,
    choose_films,
    compare_image,
    draw_reconstructions,
    error_limit,
    join_examples,
)
from cxrmodel.report.figures.scores import Rival, draw_auroc, draw_f1, draw_rivals, draw_subgroups
from cxrmodel.report.figures.theme import DPI, LIGHT, THEMES, Theme, drawing, png, rasterize
from cxrmodel.report.measure import Results
from cxrmodel.report.prose import MODELS
from cxrmodel.report.run import RunInputs, RunRecord, RunTables
from cxrmodel.report.viewer import (
    MAX_BYTES,
    VIEWS,
    ErrorScale,
    Film,
    data_url,
    jpeg_url,
    make_films,
)
from cxrmodel.training.encoding import load_vae, reconstruct

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

CSS_PX_PER_IN = 100
MAX_JPEG_BYTES = 200_000  # a few of them in two themes, with drawings and films: below 6 MB
NUM_COLOURS = 128

Draw = Callable[[Theme], Figure]


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        name: Of its file in `figures/`, without the ending.
        alt: Text for readers who cannot see the picture.
        light: `data:` URL.
        dark: `data:` URL.
        width_px: In CSS pixels.
        height_px: In CSS pixels.
    """

    name: str
    alt: str
    light: str
    dark: str
    width_px: int
    height_px: int


class Gallery:
    """The pictures of one page, in the order in which they are drawn.

    Args:
        directory: Where the files are written.

    Attributes:
        pictures: Those drawn so far.
        films: Strips of films for the viewer, by name.
        scale: Of the films' error maps, None where there is no film.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.pictures: list[Picture] = []
        self.films: dict[str, list[Film]] = {}
        self.scale: ErrorScale | None = None

    def add(self, name: str, alt: str, draw: Draw, *, is_photograph: bool = False) -> None:
        """Draw one more; see `make_picture`."""
        picture = make_picture(name, alt, draw, self._directory, is_photograph=is_photograph)
        self.pictures.append(picture)

    def add_films(self, parts: dict[str, Examples], scale: ErrorScale) -> None:
        """Add strips of films, which share the bytes that films may have."""
        num_views = len(VIEWS) * sum(len(examples.chosen) for examples in parts.values())
        for name, examples in parts.items():
            share = MAX_BYTES // num_views
            self.films[name] = make_films(examples, scale, max_view_bytes=share)
        self.scale = scale

    def write(self, name: str, draw: Draw) -> None:
        """Draw a figure that is a file and not on the page."""
        with drawing(LIGHT):
            (self._directory / f"{name}.png").write_bytes(png(rasterize(draw(LIGHT))))


def make_picture(
    name: str, alt: str, draw: Draw, directory: Path, *, is_photograph: bool = False
) -> Picture:
    """Draw a figure, write `<name>.png`, and return it for the page.

    Args:
        name: Of the file, without its ending.
        alt: What the figure shows.
        draw: Draws it in a theme.
        directory: Where the light one is written.
        is_photograph: Inline it as JPEG, several times smaller than PNG.
    """
    drawn = {}
    for theme in THEMES:
        with drawing(theme):
            image = rasterize(draw(theme))
        drawn[theme.name] = image if is_photograph else _with_palette(image)
    light = drawn[LIGHT.name]
    (directory / f"{name}.png").write_bytes(png(light))
    urls = {
        theme: jpeg_url(image, max_bytes=MAX_JPEG_BYTES)
        if is_photograph
        else data_url("image/png", png(image))
        for theme, image in drawn.items()
    }
    scale = CSS_PX_PER_IN / DPI
    width, height = round(light.width * scale), round(light.height * scale)
    return Picture(name, alt, urls["light"], urls["dark"], width, height)


def _with_palette(image: Image.Image) -> Image.Image:
    """Return a drawing with a palette, a third of the size: few colours and their blends."""
    return image.quantize(NUM_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


IN_TABLE = "the table below has the numbers."


def draw_numbers(results: Results, tables: RunTables, gallery: Gallery) -> None:
    """Draw scores, curves and losses."""
    _draw_scores(results, gallery)
    if tables.classifier["test"].num_images:
        _draw_small_multiples(results, tables, gallery)
    gallery.add(
        "training_curves",
        "Loss curves by epoch on train and validation: L1 and KL of the autoencoder, "
        "loss of the classifier; and posterior variance, active units and learning rate.",
        lambda theme: draw_training_curves(tables.vae_history, tables.classifier_history, theme),
    )
    groups = results.audit.subgroups
    if groups:
        gallery.add(
            "subgroups",
            f"AUROC, false-positive and false-negative rate of {len(groups)} groups of test "
            f"images with 95 % intervals; {IN_TABLE}",
            lambda theme: draw_subgroups(groups, theme),
        )
    kl, aggregate = results.autoencoder.kl_per_dim, results.autoencoder.aggregate
    if len(kl) and aggregate:
        distance = aggregate.kl_by_dimension()
        alt = (
            f"KL in nats of each of the {len(kl)} latent dimensions, by decreasing size, and of "
            "the aggregate posterior there."
        )
        gallery.add(
            "kl_per_dimension", alt, lambda theme: draw_kl_per_dimension(kl, distance, theme)
        )


def _draw_scores(results: Results, gallery: Gallery) -> None:
    classifier, baseline = results.classifier, results.baselines["pca_logistic"]
    gallery.add(
        "auroc",
        "AUROC of each pathology with 95 % intervals, classifier beside PCA with logistic "
        f"regression; {IN_TABLE}",
        lambda theme: draw_auroc(classifier, baseline, theme),
    )
    gallery.add(
        "f1",
        "F1 of each pathology at threshold 0.5 and at the threshold chosen on validation, "
        f"beside calling everything positive; {IN_TABLE}",
        lambda theme: draw_f1(classifier, results.baselines["all_positive"], theme),
    )
    rivals = _rivals(results)
    gallery.add(
        "baselines",
        f"Macro AUROC of {len(rivals)} models with 95 % intervals, and the classifier's lead over "
        f"each; {IN_TABLE}",
        lambda theme: draw_rivals(rivals, theme),
    )


def _rivals(results: Results) -> list[Rival]:
    """Return the classifier and what it has to beat, in the order of the table."""
    found = [Rival(MODELS["classifier"], results.classifier.macro["auroc"], None)]
    for key in (key for key in MODELS if key in results.baselines):
        theirs, lead = results.baselines[key].macro["auroc"], results.differences[key]["auroc"]
        found.append(Rival(MODELS[key], theirs, lead))
    return found


def _draw_small_multiples(results: Results, tables: RunTables, gallery: Gallery) -> None:
    model, baseline = tables.classifier["test"], tables.baselines["pca_logistic"]["test"]
    gallery.add(
        "roc",
        "ROC curve of each pathology, classifier beside PCA with logistic regression.",
        lambda theme: draw_roc(model, baseline, theme),
    )
    gallery.add(
        "precision_recall",
        "Precision over recall of each pathology, classifier beside PCA with logistic regression.",
        lambda theme: draw_precision_recall(model, baseline, theme),
    )
    gallery.add(
        "reliability",
        f"Reliability of each pathology's probabilities before and after scaling; {IN_TABLE}",
        lambda theme: draw_reliability(results.calibration, theme),
    )
    thresholds = {
        name: entry.metrics["threshold"].value
        for name, entry in results.classifier.per_class.items()
    }
    found = count_cooccurrence(model, thresholds)
    gallery.add(
        "cooccurrence",
        f"Two tables of {len(found.names)} by {len(found.names)} pathologies: which findings are "
        "labelled together on test, and which are called positive together.",
        lambda theme: draw_cooccurrence(found, theme),
    )


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
        rows = traversal_rows(vae, aggregate)
        alt = f"Images decoded from the mean latent, with one of {len(rows)} dimensions changed."
        gallery.add(
            "traversals", alt, lambda theme: draw_film_grid(rows, theme), is_photograph=True
        )
    if not (tables.images["split"] == "test").any():
        return
    mu = latent_columns(tables.latents, "mu")
    neighbours = neighbour_rows(config, mu, tables, pixels)
    alt = f"{len(neighbours)} test images, each with its nearest train images by latent."
    gallery.add(
        "neighbours", alt, lambda theme: draw_film_grid(neighbours, theme), is_photograph=True
    )


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
