"""What is drawn has the area that the table's score says."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.report.figures.panels import draw_precision_recall, draw_roc
from cxrmodel.report.figures.theme import LIGHT, drawing

NAMES = ("Edema", "Mass")


def predictions(labels, probabilities):
    patients = np.arange(len(labels))
    return Predictions(
        NAMES, np.array(labels, dtype=np.uint8), np.array(probabilities, dtype=float), patients
    )


@pytest.fixture
def tied():
    rng = np.random.default_rng(3)
    labels = rng.random((60, 2)) < 0.3
    return predictions(labels, np.round(rng.random((60, 2)) * 0.7 + labels * 0.2, 1))


def areas(figure):
    """The model's curve of each panel: its area as drawn."""
    found = []
    for axes in figure.axes:
        line = axes.get_lines()[-1]
        x, y = (np.asarray(values, dtype=float) for values in line.get_data())
        step = {"default": (y[1:] + y[:-1]) / 2, "steps-post": y[:-1], "steps-pre": y[1:]}
        found.append(abs(float(np.sum(np.diff(x) * step[line.get_drawstyle()]))))
    return found


@pytest.mark.parametrize(
    ("draw", "score"),
    [(draw_roc, roc_auc_score), (draw_precision_recall, average_precision_score)],
    ids=["roc", "precision_recall"],
)
def test_the_area_below_a_drawn_curve_is_its_score(tied, draw, score):
    with drawing(LIGHT):
        figure = draw(tied, tied, LIGHT)
    expected = [score(tied.labels[:, column], tied.probabilities[:, column]) for column in (0, 1)]
    assert areas(figure) == pytest.approx(expected)
