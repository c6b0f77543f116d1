"""The report of one run: page, numbers and figures, from the folders of its stages."""

from __future__ import annotations

import json
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrmodel.config import ReportConfig
from cxrmodel.progress import Progress, ReportProgress, silent
from cxrmodel.report.comparison.finished_run import write_parts, write_predictions
from cxrmodel.report.figures.gallery import Gallery
from cxrmodel.report.figures.reconstructions import reconstruct_selected, select_images
from cxrmodel.report.figures.registry import (
    draw_data,
    draw_latents,
    draw_numbers,
    map_of,
    write_reconstructions,
)
from cxrmodel.report.measure import measure
from cxrmodel.report.metrics_json import build_document, headline
from cxrmodel.report.page import render_cards, render_page
from cxrmodel.report.run import RunInputs, RunRecord, read_run
from cxrmodel.report.viewer import make_strips, write_examples
from cxrmodel.storage.layout import (
    METRICS_FILE,
    REPORT_FILE,
    SPLIT_FILE,
    TEST_PREDICTIONS_FILE,
    VAL_PREDICTIONS_FILE,
    VIEWER_FILE,
)
from cxrmodel.threads import beside
from cxrmodel.training.encoding import load_vae

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

__all__ = ["RunInputs", "RunRecord", "write_report"]

NUM_PARTS = 11


def write_report(
    config: ReportConfig,
    inputs: RunInputs,
    record: RunRecord,
    pixels: Pixels,
    directory: Path,
    *,
    report: ReportProgress = silent,
) -> dict[str, Any]:
    """Write page, `metrics.json`, cards, figures, predictions and parts, the same each time.

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
    begun = count()

    def begin(part: str) -> None:
        report(Progress("report", next(begun), NUM_PARTS, "parts", doing=part))

    begin("tables of the stages")
    run = read_run(inputs, record)
    # The map takes as long as all the rest.
    with beside(partial(map_of, config, run)) as latent_map:
        results = measure(run, pixels, seed=config.seed, begin=begin)
        document = build_document(run, results)
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        (directory / METRICS_FILE).write_text(text)
        write_predictions(run, "test", directory / TEST_PREDICTIONS_FILE)
        write_predictions(run, "val", directory / VAL_PREDICTIONS_FILE)
        write_parts(run, directory / SPLIT_FILE)
        begin("figures of the metrics")
        gallery = Gallery(directory / "figures")
        draw_data(config, run, pixels, gallery)
        draw_numbers(run, results, gallery)
        begin("reconstructions")
        vae = load_vae(inputs.vae)
        selected = select_images(config, run)
        examples = {name: reconstruct_selected(few, vae, pixels) for name, few in selected.items()}
        strips = make_strips(examples)
        if strips.scale is not None:
            write_reconstructions(examples, strips.scale.limit, gallery)
            write_examples(examples.values(), strips.scale.limit, directory / VIEWER_FILE)
        begin("map of the latents")
        draw_latents(config, vae, run, results, pixels, latent_map.result(), gallery)
    begin("page")
    page = render_page(config, run, results, gallery.figures, strips)
    (directory / REPORT_FILE).write_text(page, encoding="utf-8")
    for name, card in render_cards(run, results).items():
        (directory / name).write_text(card, encoding="utf-8")
    report(Progress("report", NUM_PARTS, NUM_PARTS, "parts"))
    return headline(document)
