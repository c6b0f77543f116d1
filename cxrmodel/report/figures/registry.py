"""Every figure of a report: what it shows, and in which section of the page.

A new figure is a function that draws it in a theme, and a call of `Gallery.add` here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.config import ReportConfig
from cxrmodel.data.label_columns import ANY_ABNORMAL, label_values
from cxrmodel.evaluation.audit.subgroups import AGE_BANDS, AGE_NAMES, strata_of
from cxrmodel.evaluation.autoencoder import latent_columns
from cxrmodel.evaluation.cooccurrence import Cooccurrence
from cxrmodel.models.vae import VAE
from cxrmodel.report.figures.curves import draw_training_curves
from cxrmodel.report.figures.gallery import Gallery
from cxrmodel.report.figures.grey_levels import MAX_READ, count_grey_levels, draw_grey_levels
from cxrmodel.report.figures.latent_images import (
    draw_image_grid,
    neighbour_rows,
    sample_rows,
    traversal_rows,
)
from cxrmodel.report.figures.latent_space import (
    LatentMap,
    draw_kl_per_dimension,
    draw_latent_map,
    map_latents,
)
from cxrmodel.report.figures.panels import (
    draw_cooccurrence,
    draw_precision_recall,
    draw_reliability,
    draw_roc,
)
from cxrmodel.report.figures.reconstructions import (
    MAX_COLUMNS,
    Example,
    draw_reconstructions,
)
from cxrmodel.report.figures.scores import Rival, draw_auroc, draw_f1, draw_rivals, draw_subgroups
from cxrmodel.report.measure import Results
from cxrmodel.report.prose import ranked_models
from cxrmodel.report.run import Run

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

COLUMNS = {"one_per_pathology": 7}
IN_TABLE = "the table below has the numbers."
BY = {
    "By finding": "by whether a finding is listed",
    "By view": "by view",
    "By sex": "by sex",
    "By age": "by age",
}
BOTH_MODELS = "classifier beside PCA with logistic regression"


def draw_data(config: ReportConfig, run: Run, pixels: Pixels, gallery: Gallery) -> None:
    """Draw how bright the images are, per data set where there are several."""
    shares = count_grey_levels(run.images, pixels, seed=config.seed)
    each, tell_apart = "", ""
    if len(shares) > 1:
        each = " of each data set"
        tell_apart = " Where lines differ, an image shows which data set it is of."
    gallery.add(
        "grey_levels",
        partial(draw_grey_levels, shares),
        section="data",
        alt=f"Share of the pixels by grey level{each}.",
        caption=f"Grey levels of the images as the network sees them, in steps of four; up to "
        f"{MAX_READ} images{each}, drawn at random. A peak at an end is black or white without "
        f"detail.{tell_apart}",
    )


def draw_numbers(run: Run, results: Results, gallery: Gallery) -> None:
    """Draw scores, curves and losses; of what there is, where nothing is classified."""
    if results.classifier.per_class:
        _draw_scores(results, gallery)
        if run.predictions["test"].num_images:
            _draw_panels(run, results, gallery)
        _draw_baselines(results, gallery)
    groups = results.audit.subgroups
    if any(group.is_told for group in groups.values()):
        gallery.add(
            "subgroups",
            partial(draw_subgroups, groups),
            section="subgroups",
            alt=f"AUROC, false-positive and false-negative rate of {len(groups)} groups of test "
            f"images with 95 % intervals; {IN_TABLE}",
            caption="Dots with 95 % intervals; dashed: all test images. In brackets: the number of "
            "images.",
        )
    gallery.add(
        "training_curves",
        partial(draw_training_curves, run.vae_history, run.classifier_history),
        section="training",
        alt="Loss curves by epoch on train and validation: L1 and KL of the autoencoder"
        f"{', loss of the classifier' if len(run.classifier_history) else ''}; and posterior "
        "variance, active units and learning rate.",
        caption="Means over an epoch. L1 is the mean absolute error on grey levels from 0 to 1; "
        "the KL is summed over latent dimensions. The variance and the active units (the "
        "dimensions that depend on the image) are of validation images. Train values are taken "
        "while the weights change, validation values after the epoch.",
    )


def _draw_scores(results: Results, gallery: Gallery) -> None:
    classifier, baseline = results.classifier, results.baselines["pca_logistic"]
    gallery.add(
        "auroc",
        partial(draw_auroc, classifier, baseline),
        section="classification",
        alt=f"AUROC of each pathology with 95 % intervals, {BOTH_MODELS}; {IN_TABLE}",
        caption="AUROC by pathology. *: fewer than ten test patients have a positive image, so "
        "the interval is itself uncertain.",
    )
    gallery.add(
        "f1",
        partial(draw_f1, classifier, results.baselines["all_positive"]),
        section="classification",
        alt="F1 of each pathology at threshold 0.5 and at the threshold chosen on validation, "
        f"beside calling everything positive; {IN_TABLE}",
        caption="F1 by pathology at two thresholds. The grey bar is the F1 of calling every image "
        "positive.",
    )


def _draw_panels(run: Run, results: Results, gallery: Gallery) -> None:
    model, baseline = run.predictions["test"], run.baseline_predictions["pca_logistic"]["test"]
    gallery.add(
        "roc",
        partial(draw_roc, model, baseline),
        section="classification",
        alt=f"ROC curve of each pathology, {BOTH_MODELS}.",
        caption="Sensitivity over false-positive rate, on test.",
    )
    gallery.add(
        "precision_recall",
        partial(draw_precision_recall, model, baseline),
        section="classification",
        alt=f"Precision over recall of each pathology, {BOTH_MODELS}.",
        caption="Precision over recall, on test. Chance is the prevalence. Each precision axis "
        "ends just above the highest precision at a recall of 0.1 or more; at a lower recall, "
        "precision is that of a few images.",
        summary="Precision over recall",
    )
    if len(results.cooccurrence.names) > 1:
        _draw_cooccurrence(results.cooccurrence, gallery)
    gallery.add(
        "reliability",
        partial(draw_reliability, results.calibration),
        section="calibration",
        alt=f"Reliability of each pathology's probabilities before and after scaling; {IN_TABLE}",
        caption="Share of positive test images over the mean probability of a bin; on the dashed "
        "line they agree. The axes end where the values do.",
    )


def _draw_cooccurrence(found: Cooccurrence, gallery: Gallery) -> None:
    gallery.add(
        "cooccurrence",
        partial(draw_cooccurrence, found),
        section="classification",
        alt=f"Two tables of {len(found.names)} by {len(found.names)} pathologies: which findings "
        "are labelled together on test, and which are called positive together.",
        caption="Findings that occur together. Of the test images labelled with the row's finding "
        "(their number is in brackets), the percentage that is also labelled with the column's "
        "finding (first table), and that is called positive for it at the threshold chosen on "
        "validation (second table). A good classifier repeats the first; the bold diagonal of the "
        "second is its sensitivity. A column that is dark from top to bottom is called positive "
        "for everything. A dash: no such image, or no threshold. Images whose label is not known "
        "do not count.",
    )


def _draw_baselines(results: Results, gallery: Gallery) -> None:
    rivals = [
        Rival(name, evaluation.macro["auroc"], lead)
        for name, evaluation, lead in ranked_models(results)
    ]
    gallery.add(
        "baselines",
        partial(draw_rivals, rivals),
        section="baselines",
        alt=f"Macro AUROC of {len(rivals)} models with 95 % intervals, and the classifier's lead "
        f"over each; {IN_TABLE}",
        caption="Where the line of a lead crosses zero, these test patients cannot tell which "
        "model is better.",
    )


def write_reconstructions(
    examples: dict[str, list[Example]], limit: float, gallery: Gallery
) -> None:
    """Write a file per strip, all on one error scale; the page has the strips themselves."""
    for name, strip in examples.items():
        columns = COLUMNS.get(name, MAX_COLUMNS)
        gallery.write(name, partial(draw_reconstructions, strip, limit, max_columns=columns))


def draw_latents(
    config: ReportConfig, vae: VAE, run: Run, results: Results, pixels: Pixels,
    latent_map: LatentMap | None, gallery: Gallery,
) -> None:  # fmt: skip
    """Draw a map of the latents, images that show what they mean, and what each one carries."""
    if latent_map is not None:
        draw_map(latent_map, config, run, gallery)
    _draw_decoded(config, vae, results, gallery)
    if run.in_test.any():
        rows = neighbour_rows(config, latent_columns(run.latents, "mu"), run, pixels)
        gallery.add(
            "neighbours",
            partial(draw_image_grid, rows),
            section="latents",
            alt=f"{len(rows)} test images, each with its nearest train images by latent.",
            caption="Left: test images drawn at random. To the right of each: the train images of "
            "other patients with the nearest latents"
            f"{', and the findings that are listed for them' if run.labels else ''}.",
            is_photograph=True,
        )
    kl, aggregate = results.autoencoder.kl_per_dim, results.autoencoder.aggregate
    if len(kl) and aggregate:
        gallery.add(
            "kl_per_dimension",
            partial(draw_kl_per_dimension, kl, aggregate.kl_by_dimension()),
            section="latents",
            alt=f"KL in nats of each of the {len(kl)} latent dimensions, by decreasing size, and "
            "of the aggregate posterior there.",
            caption="What each latent dimension carries, as KL to the prior. Wide bars: mean over "
            "test images. Narrow bars: KL of the Gaussian fitted to the aggregate posterior of the "
            "train images, which is the part that does not tell images apart.",
        )


def _draw_decoded(config: ReportConfig, vae: VAE, results: Results, gallery: Gallery) -> None:
    """Draw images decoded from latents near those of the train images.

    Where the aggregate posterior is far from the prior, the decoder has not been trained on latents
    drawn from the prior.
    """
    aggregate = results.autoencoder.aggregate
    if aggregate is None:
        return
    samples = sample_rows(vae, aggregate, seed=config.seed)
    gallery.add(
        "samples",
        partial(draw_image_grid, samples),
        section="latents",
        alt=f"{len(samples[0].images)} images decoded from latents drawn like those of the train "
        "images.",
        caption="Generated images, of no patient: decoded from latents drawn at random (with the "
        "report's seed) from the Gaussian fitted to the aggregate posterior of the train images, "
        "not from the prior.",
        is_photograph=True,
    )
    rows = traversal_rows(vae, aggregate)
    gallery.add(
        "traversals",
        partial(draw_image_grid, rows),
        section="latents",
        alt=f"Images decoded from the mean latent, with one of {len(rows)} dimensions changed.",
        caption="The latent dimensions whose posterior mean varies most between train images. "
        "Each is moved by -3 to 3 of its standard deviations (sd) over the train images, while "
        "the others stay at the mean latent of the train images.",
        is_photograph=True,
    )


def map_of(config: ReportConfig, run: Run) -> LatentMap | None:
    """Return the map of a run's latents, None where there are too few or all are the same."""
    return map_latents(
        latent_columns(run.latents, "mu").astype(np.float32),
        max_points=config.tsne_points,
        perplexity=config.tsne_perplexity,
        seed=config.seed,
    )


def draw_map(found: LatentMap, config: ReportConfig, run: Run, gallery: Gallery) -> None:
    """Draw the map, coloured by what is known of the images."""
    drawn = run.images.iloc[found.rows]
    colourings = _colourings(drawn)
    by = [BY[title] for title in colourings if title in BY]
    coloured = f", coloured {' and '.join([', '.join(by[:-1]), *by[-1:]]).removeprefix(' and ')}"
    alt = (
        f"t-SNE of {len(drawn):,} latents{coloured if by else ''}; perplexity "
        f"{found.perplexity:.3g}, trustworthiness {found.trustworthiness:.3f} among 10 neighbours."
    )
    caption = (
        f"{alt} Images of all parts of the split, drawn at random with seed {config.seed}; the "
        f"perplexity is the configured {config.tsne_perplexity:g}, or a third of the other points "
        "where that is less. A t-SNE keeps neighbours together: distances between clusters, their "
        "sizes and their number mean little."
    )
    if "By view" in colourings and not run.record.is_synthetic:
        caption += (
            " AP images are taken of sicker patients, so latents that encode the view look as if "
            "they encoded disease."
        )
    draw = partial(draw_latent_map, found, colourings)
    gallery.add("latent_space", draw, section="latents", alt=alt, caption=caption)


def _colourings(drawn: pd.DataFrame) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Return the groups of each panel of the map; what is not known is its own group.

    There is no panel of what is known of no image, and one without groups if that leaves none.
    """
    abnormal = label_values(drawn, [ANY_ABNORMAL])[:, 0]
    strata = strata_of(drawn)
    groups = {"no listed finding": abnormal == 0, "any listed finding": abnormal == 1}
    found = {"By finding": groups}
    for kind, levels in (("view", ("PA", "AP")), ("sex", ("F", "M"))):
        found[f"By {kind}"] = {level: np.asarray(strata[kind] == level) for level in levels}
    ages = strata["age"]
    old, known = np.asarray(ages == AGE_NAMES[-1]), np.asarray(drawn["age"].notna(), dtype=bool)
    found["By age"] = {f"under {AGE_BANDS[-1]}": known & ~old, AGE_NAMES[-1]: old}
    found = {title: groups for title, groups in found.items() if np.any(list(groups.values()))}
    for title, groups in found.items():
        rest = ~np.logical_or.reduce(list(groups.values()))
        if rest.any():
            groups[f"{title.removeprefix('By ')} unknown"] = rest
    return found or {"All images": {"images": np.ones(len(drawn), dtype=bool)}}
