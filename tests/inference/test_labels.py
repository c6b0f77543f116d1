"""Data sets with two labels, with thirty of which some are unknown, and with none, end to end."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from cxrmodel.data.label_columns import any_abnormal
from cxrmodel.errors import DataError
from cxrmodel.inference.calibration import calibrated, read_labels
from cxrmodel.inference.command_line import main
from cxrmodel.inference.onnx import export_onnx
from cxrmodel.inference.operating_points import operating_points
from cxrmodel.inference.predictor import load
from tests.inference.conftest import make_run

NUM_IMAGES = 90
TWO = ("Opacity", "Pleural Effusion")
NAMES = ("Enlarged Cardiomediastinum", "Pleural_Other", "Lung Opacity", "Fracture", "Nodule")
THIRTY = tuple(f"{name} {number}" for number in range(1, 7) for name in NAMES)
NOBODY_HAS, ONLY_NULL = THIRTY[3], THIRTY[7]


def relabelled(index, labels):
    known = index.loc[:, :"any_abnormal"].drop(columns="any_abnormal")
    return pd.concat([known, any_abnormal(labels), labels], axis="columns")


def with_two(index):
    opacity = index[["Mass", "Infiltration", "Consolidation", "Atelectasis"]].max(axis=1)
    labels = pd.DataFrame({TWO[0]: opacity, TWO[1]: index["any_abnormal"]}, dtype="Int8")
    return relabelled(index, labels)


def with_thirty(index):
    """Half of the patients come from a place that gave every other label only."""
    rng = np.random.default_rng(0)
    hot = rng.random((len(index), len(THIRTY))) < 0.3
    labels = pd.DataFrame(hot, columns=list(THIRTY)).astype("Int8")
    elsewhere = pd.factorize(index["patient_id"])[0] % 2 == 1
    labels.loc[elsewhere, list(THIRTY[::2])] = pd.NA
    labels[NOBODY_HAS] = pd.array([0] * len(index), "Int8")
    labels[ONLY_NULL] = pd.array([None] * len(index), "Int8")
    return relabelled(index, labels)


def with_none(index):
    return relabelled(index, index[[]])


class Finished:
    """A run with its report and bundle."""

    def __init__(self, folder, relabel):
        self.run = make_run(folder, NUM_IMAGES, relabel)
        self.bundle = self.run.write_bundle(folder / "bundle")
        self.model = load(self.bundle, device="cpu")
        report = self.run.stage("report")
        self.metrics = json.loads((report / "metrics.json").read_text())
        self.page = (report / "report.html").read_text(encoding="utf-8")
        self.words = " ".join(
            re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", self.page, flags=re.S).split()
        )
        self.figures = {path.stem for path in (report / "figures").glob("*.png")}
        self.cards = [(report / name).read_text() for name in ("MODEL_CARD.md", "DATASHEET.md")]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return Finished(tmp_path_factory.mktemp("two"), with_two)


@pytest.fixture(scope="module")
def thirty(tmp_path_factory):
    return Finished(tmp_path_factory.mktemp("thirty"), with_thirty)


@pytest.fixture(scope="module")
def none(tmp_path_factory):
    return Finished(tmp_path_factory.mktemp("none"), with_none)


def test_two_labels_reach_the_report_and_the_model_under_their_names(two):
    assert two.metrics["data"]["labels"] == list(TWO)
    assert list(two.metrics["classifier"]["per_class"]) == list(TWO)
    assert two.model.labels == TWO
    assert "a classifier of 2 pathologies on its latents" in two.words
    scores = two.model.predict(two.run.root / "images")
    assert scores["p_Pleural Effusion"].between(0, 1).all()
    assert [name for name in scores if name.startswith("p_")] == [f"p_{name}" for name in TWO]


def test_labels_that_cannot_be_learned_are_left_out_by_name(thirty):
    learned = [name for name in THIRTY if name not in (NOBODY_HAS, ONLY_NULL)]
    assert thirty.metrics["data"]["labels"] == list(THIRTY)
    assert thirty.metrics["classifier"]["labels"] == learned == list(thirty.model.labels)
    assert thirty.metrics["classifier"]["labels_left_out"] == {
        NOBODY_HAS: "no positive image in train",
        ONLY_NULL: "no labelled image in train",
    }
    assert "2 labels of the data set cannot be learned and are left out" in thirty.words
    assert all(NOBODY_HAS in card for card in thirty.cards)


def test_scores_rest_on_the_images_that_are_labelled(thirty):
    num_test = thirty.metrics["split"]["num_test"]
    per_class = thirty.metrics["classifier"]["per_class"]
    index = pd.read_parquet(thirty.run.stage("index") / "index.parquet").set_index("image")
    split = pd.read_parquet(thirty.run.stage("split") / "split.parquet").query("split == 'test'")
    labels = index.loc[split["image"]]
    for name, entry in per_class.items():
        known = labels[name].dropna()
        assert entry["num_labelled"] == len(known)
        assert entry["num_positive"] == known.sum()
        assert entry["prevalence"] == pytest.approx(known.mean())
    numbers = {entry["num_labelled"] for entry in per_class.values()}
    assert max(numbers) == num_test > min(numbers) > 0
    assert "not known for every test image" in thirty.words


def test_a_bundle_keeps_unknown_labels_unknown(thirty):
    reference = thirty.model.bundle.reference
    partly, wholly = reference[f"y_{THIRTY[0]}"], reference[f"y_{THIRTY[1]}"]
    assert 0 < partly.isna().sum() < len(reference)
    assert wholly.notna().all()
    points = operating_points(thirty.model.bundle, thresholds={THIRTY[0]: 0.0})
    assert points[0].rates == {"alerts_per_100": 100.0}
    num_positive, num_negative = ((partly == kind).sum() for kind in (1, 0))  # too few of both
    assert f"{num_positive} positive image" in points[0].reason
    assert f"and {num_negative} negative image" in points[0].reason
    assert len(calibrated(thirty.model.bundle).labels) == 28


def test_without_labels_the_report_begins_with_it_and_shows_the_rest(none):
    assert none.metrics["data"]["labels"] == none.metrics["classifier"]["labels"] == []
    assert none.metrics["classifier"]["macro_auroc"] is None
    assert none.metrics["vae"]["test_l1"] > 0
    first_lines, _, _ = none.words.partition("What to worry about")
    assert "There was nothing to classify: the data set has no labels." in first_lines
    assert {"latent_space", "reconstructions", "extremes", "neighbours"} <= none.figures
    assert not {"auroc", "roc", "baselines", "subgroups", "cooccurrence"} & none.figures
    assert "Macro AUROC" not in none.words
    assert all("nan" not in text.lower().split() for text in (none.words, *none.cards))


def test_without_labels_a_model_gives_latents_and_how_unusual_an_image_is(none, tmp_path, capsys):
    scores = none.model.predict(none.run.root / "images")
    assert not [name for name in scores if name.startswith(("p_", "call_"))]
    assert scores[["mu_00", "l1", "distance", "unusual"]].notna().all(axis=None)
    assert calibrated(none.model.bundle).labels == ()
    main(["info", str(none.bundle)])
    assert "It classifies nothing" in capsys.readouterr().out
    pytest.importorskip("onnxruntime")
    assert set(export_onnx(none.model, tmp_path / "none.onnx")) == {"mu", "logvar"}
    with pytest.raises(DataError, match="classifies nothing, so labels say"):
        read_labels(tmp_path / "labels.csv", none.model.labels)
    with pytest.raises(ValueError, match="'Mass' is no label; the labels are none"):
        operating_points(none.model.bundle, thresholds={"Mass": 0.5})
