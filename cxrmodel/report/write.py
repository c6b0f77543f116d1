"""The report of one run: page, numbers and figures, from the folders of its stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxrmodel.config import ReportConfig
from cxrmodel.evaluation.resolution import to_unit
from cxrmodel.progress import Progress, ReportProgress, silent
from cxrmodel.report.document import build_document, headline
from cxrmodel.report.figures.classification import draw_auroc, draw_f1
from cxrmodel.report.figures.curves import draw_training_curves
from cxrmodel.report.figures.latent_space import (
    draw_kl_per_dimension,
    draw_latent_map,
    map_latents,
)
from cxrmodel.report.figures.reconstructions import (
    Examples,
    compare_image,
    draw_reconstructions,
    join_examples,
)
from cxrmodel.report.html import render_page
from cxrmodel.report.inputs import RunInputs, RunRecord, RunTables, read_tables
from cxrmodel.report.pictures import Picture, make_picture
from cxrmodel.report.results import Results, measure
from cxrmodel.training.latents import reconstruct
from cxrmodel.training.vae import load_vae

if TYPE_CHECKING:
    from cxrmodel.data.pixels import Pixels

__all__ = ["RunInputs", "RunRecord", "write_report"]

NUM_STEPS = 5


def write_report(
    config: ReportConfig,
    inputs: RunInputs,
    record: RunRecord,
    pixels: Pixels,
    directory: Path,
    *,
    report: ReportProgress = silent,
) -> dict[str, Any]:
    """Write `report.html`, `metrics.json` and `figures/*.png`; same inputs, same bytes.

    Args:
        config: What to show.
        inputs: Folders of the stages.
        record: What is known of the run.
        pixels: The images, for the reconstructions.
        directory: Where to write; `figures` is made in it.
        report: Called with the progress.

    Returns:
        The headline metrics, None where undefined.
    """
    _tell(report, 0)
    tables = read_tables(inputs)
    results = measure(tables, seed=config.seed)
    document = build_document(tables, results, record)
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    (directory / "metrics.json").write_text(text)
    _tell(report, 1)
    figures = directory / "figures"
    figures.mkdir(exist_ok=True)
    pictures = [*_draw_numbers(results, tables, figures)]
    _tell(report, 2)
    pictures += _draw_reconstructions(config, inputs, tables, pixels, figures)
    _tell(report, 3)
    pictures += _draw_latent_map(config, tables, figures)
    _tell(report, 4)
    page = render_page(config, tables, results, document, record, pictures)
    (directory / "report.html").write_text(page, encoding="utf-8")
    _tell(report, NUM_STEPS)
    return headline(document)


def _tell(report: ReportProgress, done: int) -> None:
    report(Progress("report", done, NUM_STEPS, "parts"))


def _draw_numbers(results: Results, tables: RunTables, figures: Path) -> list[Picture]:
    classifier, baseline = results.classifier, results.baselines["pca_logistic"]
    pictures = [
        make_picture(
            "auroc",
            "AUROC of each pathology with 95 % intervals, classifier beside PCA with logistic "
            "regression; the table below has the numbers.",
            lambda theme: draw_auroc(classifier, baseline, theme),
            figures,
        ),
        make_picture(
            "f1",
            "F1 of each pathology at threshold 0.5 and at the threshold chosen on validation, "
            "beside calling everything positive; the table below has the numbers.",
            lambda theme: draw_f1(classifier, theme),
            figures,
        ),
        make_picture(
            "training_curves",
            "Loss curves by epoch on train and validation: L1 and KL of the autoencoder, "
            "cross-entropy of the classifier.",
            lambda theme: draw_training_curves(
                tables.vae_history, tables.classifier_history, theme
            ),
            figures,
        ),
    ]
    kl = results.autoencoder.kl_per_dim
    if len(kl):
        alt = f"KL in nats of each of the {len(kl)} latent dimensions, by decreasing size."
        draw = make_picture(
            "kl_per_dimension", alt, lambda theme: draw_kl_per_dimension(kl, theme), figures
        )
        pictures.append(draw)
    return pictures


def _draw_reconstructions(
    config: ReportConfig, inputs: RunInputs, tables: RunTables, pixels: Pixels, figures: Path
) -> list[Picture]:
    test = tables.images.loc[tables.images["split"] == "test", "image"].tolist()
    if not test:
        return []
    examples = _reconstruct_examples(config, inputs, test, pixels)
    alt = (
        f"{len(examples.names)} test images drawn at random, their reconstructions, and maps of "
        "the absolute error on one colour scale."
    )
    return [
        make_picture(
            "reconstructions",
            alt,
            lambda theme: draw_reconstructions(examples, theme),
            figures,
            is_photograph=True,
        )
    ]


def _reconstruct_examples(
    config: ReportConfig, inputs: RunInputs, test: list[str], pixels: Pixels
) -> Examples:
    count = min(config.num_reconstructions, len(test))
    drawn = np.random.default_rng(config.seed).permutation(len(test))[:count]
    vae = load_vae(inputs.vae)
    parts = []
    for name in (test[row] for row in drawn):  # one at a time: at full size they are large
        image = pixels.read(pixels.rows_of([name]))  # (1, S, S)
        decoded = reconstruct(vae, image, device="cpu")  # the same pixels on every machine
        parts.append(compare_image(name, to_unit(image)[0], decoded[0]))
    return join_examples(parts)


def _draw_latent_map(config: ReportConfig, tables: RunTables, figures: Path) -> list[Picture]:
    latent_map = map_latents(
        tables.latents.filter(regex=r"^mu_\d+$").to_numpy(dtype=np.float32),
        max_points=config.tsne_points,
        perplexity=config.tsne_perplexity,
        seed=config.seed,
    )
    if latent_map is None:
        return []
    drawn = tables.images.iloc[latent_map.rows]
    any_abnormal = drawn["any_abnormal"].to_numpy(dtype=bool)
    views = drawn["view"].to_numpy(dtype=object)
    alt = (
        f"t-SNE of {len(drawn):,} latents, coloured by whether a finding is listed, and by view; "
        f"perplexity {latent_map.perplexity:.3g}."
    )
    return [
        make_picture(
            "latent_space",
            alt,
            lambda theme: draw_latent_map(latent_map, any_abnormal, views, theme),
            figures,
        )
    ]
