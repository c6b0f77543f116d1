from functools import partial

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from cxrmodel.evaluation.calibration import evaluate_calibration
from cxrmodel.evaluation.cooccurrence import count_cooccurrence
from cxrmodel.evaluation.evaluate import evaluate
from cxrmodel.evaluation.patient_bootstrap import Estimate, PatientBootstrap
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.report.figures.curves import draw_training_curves
from cxrmodel.report.figures.latent_images import ImageRow, draw_image_grid
from cxrmodel.report.figures.latent_space import (
    draw_kl_per_dimension,
    draw_latent_map,
    map_latents,
    usable_perplexity,
)
from cxrmodel.report.figures.panels import (
    draw_cooccurrence,
    draw_precision_recall,
    draw_reliability,
    draw_roc,
)
from cxrmodel.report.figures.reconstructions import (
    Selection,
    draw_reconstructions,
    make_example,
)
from cxrmodel.report.figures.scores import Rival, draw_auroc, draw_f1, draw_rivals, draw_subgroups
from cxrmodel.report.figures.theme import LIGHT, drawing, rasterize


def shown_texts(figure):
    """Every text that is drawn; matplotlib keeps labels of ticks beyond an axis as well."""
    yield from figure.texts
    for legend in figure.legends:
        yield from legend.get_texts()
    for axes in figure.axes:
        yield from [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        if axes.get_legend():
            yield from axes.get_legend().get_texts()
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for place, label in zip(
                axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True
            ):
                if low - 1e-9 <= place <= high + 1e-9:
                    yield label


def overlaps(figure):
    """Texts that leave the figure, and pairs of texts whose boxes meet."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for text in shown_texts(figure) if text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    assert len(boxes) > 3
    page = figure.bbox
    outside = [
        (text, box.bounds)
        for text, box in boxes
        if box.x0 < 0 or box.y0 < 0 or box.x1 > page.x1 or box.y1 > page.y1
    ]
    meeting = [
        (one, two)
        for row, (one, box) in enumerate(boxes)
        for two, other in boxes[row + 1 :]
        if box.padded(-1).overlaps(other.padded(-1))
    ]
    return outside + meeting


def drawn(draw):
    with drawing(LIGHT):
        figure = draw(LIGHT)
        rasterize(figure)
        return overlaps(figure)


def test_no_label_meets_another_or_leaves_the_classification_figures(results):
    classifier, baselines = results.classifier, results.baselines
    assert drawn(partial(draw_auroc, classifier, baselines["pca_logistic"])) == []
    assert drawn(partial(draw_f1, classifier, baselines["all_positive"])) == []


def test_no_label_meets_another_in_the_small_multiples(results, run):
    model, baseline = run.predictions["test"], run.baseline_predictions["pca_logistic"]["test"]
    assert drawn(partial(draw_roc, model, baseline)) == []
    assert drawn(partial(draw_precision_recall, model, baseline)) == []
    assert drawn(partial(draw_reliability, results.calibration)) == []


def test_no_label_meets_another_where_findings_come_together(results):
    assert drawn(partial(draw_cooccurrence, results.cooccurrence)) == []


@pytest.fixture(scope="module")
def many():
    """Thirty labels with names as data sets have them, and some that nobody has in test."""
    names = tuple(f"Enlarged Cardiomediastinum {number}" for number in range(28))
    names = (*names, "A name of $forty$ characters and a few_more", "B")
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 30)) < 0.3).astype(np.float64)
    labels[:, 3] = 0
    labels[::2, 5] = np.nan
    made = Predictions(names, labels, rng.random((60, 30)), np.arange(60))
    bootstrap = PatientBootstrap(made.patients, num_resamples=10)
    return made, evaluate(made, made, bootstrap), evaluate_calibration(made, made, bootstrap)


def test_no_label_meets_another_where_there_are_thirty_with_long_names(many):
    made, scores, calibration = many
    limits = np.full(30, 0.5)
    for draw in (
        partial(draw_auroc, scores, scores),
        partial(draw_f1, scores, scores),
        partial(draw_roc, made, made),
        partial(draw_precision_recall, made, made),
        partial(draw_reliability, calibration),
        partial(draw_cooccurrence, count_cooccurrence(made, limits)),
    ):
        assert drawn(draw) == []


def test_no_label_meets_another_in_the_baselines():
    rivals = [
        Rival("Classifier on latents", Estimate(0.7, (0.65, 0.75)), None),
        Rival("Memory of the patient's other labels", Estimate(0.5), Estimate(0.2, (0.15, 0.25))),
        Rival("Undefined", Estimate.undefined("why"), Estimate.undefined("why")),
    ]
    assert drawn(partial(draw_rivals, rivals)) == []


def test_no_label_meets_another_in_the_subgroups(results):
    assert drawn(partial(draw_subgroups, results.audit.subgroups)) == []


@pytest.mark.parametrize("count", [2, 7])
def test_no_label_meets_another_in_a_grid_of_images(count):
    images = np.random.default_rng(0).random((count, 64, 64), dtype=np.float32)
    titles = [f"0000{image}_000\nPleural Thickening +2" for image in range(count)]
    rows = [ImageRow(images, "z12\n3.21 nats", titles)] * 2
    assert drawn(partial(draw_image_grid, rows)) == []


@pytest.mark.parametrize("epochs", [1, 20, 300])
def test_no_label_meets_another_in_the_curves(epochs):
    epoch = np.arange(1, epochs + 1)
    values = 1234.5 / epoch
    names = [f"{part}_{name}" for part in ("train", "val") for name in ("l1", "kl_nats", "loss")]
    names += ["posterior_variance", "active_units", "lr"]
    history = pd.DataFrame({"epoch": epoch, **dict.fromkeys(names, values)})
    assert drawn(partial(draw_training_curves, history, history)) == []


def test_curves_without_a_validation_image():
    history = pd.DataFrame(
        {
            "epoch": [1, 2],
            "train_l1": [2, 1],
            "train_kl_nats": [1, 2],
            "train_loss": [2, 1],
            "val_l1": None,
            "val_kl_nats": None,
            "val_loss": None,
            "posterior_variance": None,
            "active_units": None,
            "lr": 1e-4,
        }
    )
    assert drawn(partial(draw_training_curves, history, history)) == []


@pytest.mark.parametrize("num_dimensions", [1, 64, 1000])
def test_no_label_meets_another_in_the_kl(num_dimensions):
    kl = np.linspace(0, 3, num_dimensions)
    assert drawn(partial(draw_kl_per_dimension, kl, kl / 2)) == []


@pytest.mark.parametrize("count", [1, 2, 7, 24])
def test_no_label_meets_another_in_the_reconstructions(count):
    rng = np.random.default_rng(0)
    images = rng.random((count, 64, 64), dtype=np.float32)
    examples = [
        make_example(Selection(f"{row:08d}_000.png", 0.1), image, image / 2)
        for row, image in enumerate(images)
    ]
    assert drawn(partial(draw_reconstructions, examples, 0.5)) == []


def test_no_label_meets_another_in_the_latent_map():
    rng = np.random.default_rng(0)
    found = map_latents(
        rng.normal(size=(40, 8)).astype(np.float32), max_points=30, perplexity=30, seed=1
    )
    groups = {"no listed finding": rng.random(30) < 0.5, "any listed finding": rng.random(30) < 0.5}
    panels = dict.fromkeys(("By finding", "By view", "By sex", "By age"), groups)
    assert drawn(partial(draw_latent_map, found, panels)) == []
    assert 0.5 < found.trustworthiness <= 1


@pytest.mark.parametrize(("count", "expected"), [(10_000, 30), (91, 30), (61, 20), (5, 4 / 3)])
def test_perplexity_is_lowered_to_a_third_of_the_other_points(count, expected):
    assert usable_perplexity(30, count) == pytest.approx(expected)


@pytest.mark.parametrize(("count", "num_dimensions"), [(5, 3), (12, 1)])
def test_smallest_maps(count, num_dimensions):
    mu = np.random.default_rng(0).normal(size=(count, num_dimensions)).astype(np.float32)
    found = map_latents(mu, max_points=100, perplexity=30, seed=0)
    assert found.points.shape == (count, 2)
    assert np.isfinite(found.points).all()
    assert sorted(found.rows) == list(range(count))


def test_four_points_are_too_few_for_a_map():
    assert map_latents(np.zeros((4, 2), np.float32), max_points=9, perplexity=30, seed=0) is None


@pytest.mark.parametrize("spread", [0.0, 1e-30])
def test_latents_that_are_all_the_same_have_no_map(spread):
    mu = (0.5 + spread * np.random.default_rng(0).normal(size=(60, 8))).astype(np.float32)
    assert map_latents(mu, max_points=99, perplexity=30, seed=0) is None
    alone = (mu - 0.5).astype(np.float32)
    assert map_latents(alone, max_points=99, perplexity=30, seed=0) is None
