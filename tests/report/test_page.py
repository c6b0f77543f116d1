import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pandas as pd
import pytest

from cxrmodel.config import ReportConfig
from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.report.run import FITTED_BASELINES
from cxrmodel.report.write import write_report

SMALL_REPORT = ReportConfig(num_reconstructions=1, tsne_points=60)
MAX_PAGE_BYTES = 6_000_000


class Page(HTMLParser):
    """Collects tags, their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def text(report):
    return (report[0] / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_page_asks_for_nothing_from_outside(page, text):
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "poster", "data", "action"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, name)
        target = attributes.get("href")
        if target is not None:
            assert tag == "a", tag
            assert target.startswith(("#", "https://nihcc.app.box.com/")), target
    assert "@import" not in text
    assert "url(" not in text
    assert len(text.encode()) < MAX_PAGE_BYTES


def test_page_has_headings_in_order_targets_for_its_links_and_alt_texts(page):
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    known = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(known) == len(set(known))
    links = [a["href"][1:] for tag, a in page.tags if tag == "a" and a["href"].startswith("#")]
    assert set(links) <= set(known)
    assert len(set(links)) == 14
    assert all(a["alt"] for tag, a in page.tags if tag == "img")
    assert ("html", {"lang": "en"}) in page.tags


def test_page_says_what_matters(page):
    words = page.words
    assert "Not for clinical use" in words
    assert "240 images of" in words
    assert "The CSV has a row for it, and no such file is there." in words
    assert "image_missing index 2" in words.replace("</code>", "")
    assert "no listed finding" in words
    assert "mined from radiology reports" in words
    assert "NIH Clinical Center" in words
    assert "ChestX-ray8" in words
    assert "No test image belongs to a patient that is also in train." in words
    assert (
        "Hernia: AUROC, average precision, F1, F1 at 0.5, sensitivity (no positive image in test)"
        in words
    )


def test_page_escapes_what_the_data_says(page, text):
    assert "row 7 <b>& row 9</b>" in page.words
    assert "<b>" not in text


def test_a_run_too_small_for_anything_still_has_a_report(make_run, tmp_path):
    run = make_run(count=8, epochs=1, without=PATHOLOGIES, data={"root": "phantom"})
    split = pd.read_parquet(run.inputs.split / "split.parquet")
    images = split["image"].tolist()
    for stage, name in (
        ("split", "split"),
        ("latents", "latents"),
        ("classifier", "predictions"),
        *(("baselines", name) for name in FITTED_BASELINES),
    ):
        path = getattr(run.inputs, stage) / f"{name}.parquet"
        table = pd.read_parquet(path)
        table["split"] = "train"
        table.to_parquet(path, index=False)
    summary = write_report(SMALL_REPORT, run.inputs, run.record, run.pixels, tmp_path)
    assert len(images) == 8
    assert all(value is None for value in summary.values())
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "The images are synthetic" in page.words
    assert "There is no test image to show." in page.words
    assert "NIH" not in page.words
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["split"]["undefined"] == {"leaking_test_fraction": "no test image"}
    assert metrics["vae"]["undefined"]["test_l1"] == "no test image"


def test_what_the_data_does_not_have_is_not_shown(make_run, tmp_path):
    run = make_run(count=60, epochs=1, data={"sources": (), "columns": {"image": "x", "age": ""}})
    path = run.inputs.index / "index.parquet"
    index = pd.read_parquet(path)
    unknown = {name: pd.Series(None, index.index, index[name].dtype) for name in ("age", "sex")}
    index.assign(**unknown, follow_up=pd.Series(None, index.index, "Int32")).to_parquet(path)
    write_report(SMALL_REPORT, run.inputs, run.record, run.pixels, tmp_path)
    words = Page((tmp_path / "report.html").read_text(encoding="utf-8")).words
    assert "View, no pixel" in words
    assert "and so not checked for shortcuts: sex, age, follow-up." in words
    assert "the sex and the age cannot be said: known of too few images." in words
    assert "sources none" in words
    assert "()" not in words
    index.assign(**unknown, view=unknown["sex"]).to_parquet(path)
    write_report(SMALL_REPORT, run.inputs, run.record, run.pixels, tmp_path)
    words = Page((tmp_path / "report.html").read_text(encoding="utf-8")).words
    assert "There is no model of age, sex and view: none of them is known of any image." in words
    assert ", no pixel" not in words
    assert "metadata" not in json.loads((tmp_path / "metrics.json").read_text())["baselines"]


def test_probabilities_that_were_scaled_before_are_said_to_be(make_run, report, page, tmp_path):
    run = make_run(count=40, epochs=1, classifier={"loss": "balanced", "epochs": 2})
    write_report(SMALL_REPORT, run.inputs, run.record, run.pixels, tmp_path)
    words = Page((tmp_path / "report.html").read_text(encoding="utf-8")).words
    card = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    sentences = (
        ("loss (balanced) does not aim at probabilities, so the probabilities", words, page.words),
        (
            "loss (balanced) does not aim at probabilities, so they are published after Platt",
            card,
            (report[0] / "MODEL_CARD.md").read_text(encoding="utf-8"),
        ),
    )
    for sentence, found, otherwise in sentences:
        assert sentence in found
        assert "does not aim at" not in otherwise
