"""The figures that show numbers."""

from __future__ import annotations

from cxrmodel.report.figures.classification import draw_auroc, draw_f1
from cxrmodel.report.figures.cooccurrence import count_cooccurrence, draw_cooccurrence
from cxrmodel.report.figures.curves import draw_training_curves
from cxrmodel.report.figures.latent_space import draw_kl_per_dimension
from cxrmodel.report.figures.rivals import Rival, draw_rivals
from cxrmodel.report.figures.small_multiples import (
    draw_precision_recall,
    draw_reliability,
    draw_roc,
)
from cxrmodel.report.figures.subgroups import draw_subgroups
from cxrmodel.report.inputs import RunTables
from cxrmodel.report.names import MODELS
from cxrmodel.report.pictures import Gallery
from cxrmodel.report.results import Results

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
        lambda theme: draw_f1(classifier, theme),
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
    classifier = results.classifier
    own = classifier.macro["auroc"].value, classifier.intervals.get("auroc")
    found = [Rival(MODELS["classifier"], *own, None, None)]
    for key in (key for key in MODELS if key in results.baselines):
        baseline, lead = results.baselines[key], results.differences[key]["auroc"]
        theirs = baseline.macro["auroc"].value, baseline.intervals.get("auroc")
        found.append(Rival(MODELS[key], *theirs, lead.value, lead.interval))
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
