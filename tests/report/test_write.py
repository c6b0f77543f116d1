import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from cxrmodel.config import ReportConfig
from cxrmodel.data.pathologies import PATHOLOGIES
from cxrmodel.report.drawn_images import draw_images
from cxrmodel.report.inputs import read_tables
from cxrmodel.report.pictures import Gallery
from cxrmodel.report.results import measure
from cxrmodel.report.write import write_report

CONFIG = ReportConfig(num_reconstructions=3, tsne_points=60)
MAX_PAGE_BYTES = 6_000_000
FIGURES = {
    "extremes.png",
    "neighbours.png",
    "one_a_class.png",
    "samples.png",
    "traversals.png",
    "auroc.png",
    "f1.png",
    "kl_per_dimension.png",
    "latent_space.png",
    "precision_recall.png",
    "reliability.png",
    "roc.png",
    "subgroups.png",
    "reconstructions.png",
    "training_curves.png",
}
MACROS = ("macro_auroc", "macro_average_precision", "macro_f1", "macro_f1_at_0_5")


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


def write(run, directory, **config):
    return write_report(
        CONFIG.model_copy(update=config), run.inputs, run.record, run.pixels, directory
    )


@pytest.fixture(scope="module")
def report(made_run, tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    summary = write(made_run, directory)
    return directory, summary


@pytest.fixture(scope="module")
def metrics(report):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads((report[0] / "metrics.json").read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def text(report):
    return (report[0] / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_writes_page_numbers_and_figures(report):
    directory = report[0]
    written = {"report.html", "metrics.json", "MODEL_CARD.md", "DATASHEET.md", "figures"}
    written.add("test_predictions.parquet")
    assert {path.name for path in directory.iterdir()} == written
    assert {path.name for path in (directory / "figures").iterdir()} == FIGURES


def test_summary_is_the_headline_of_the_metrics(report, metrics):
    summary = report[1]
    assert {"macro_auroc", "macro_f1", "macro_f1_at_0_5", "test_l1", "test_psnr"} <= set(summary)
    assert summary["macro_auroc"] == metrics["classifier"]["macro_auroc"]
    assert summary["test_l1"] == metrics["vae"]["test_l1"]


def test_metrics_have_every_promised_name(metrics, made_run):
    assert set(metrics["data"]) >= {"num_images", "num_excluded", "fingerprint"}
    assert set(metrics["split"]) >= {
        "method",
        "num_train",
        "num_val",
        "num_test",
        "leaking_test_fraction",
    }
    assert set(metrics["vae"]) >= {
        "val_l1",
        "test_l1",
        "test_psnr",
        "kl_nats",
        "active_units",
        "epochs",
    }
    for model in (
        metrics["classifier"],
        *(metrics["baselines"][n] for n in ("all_positive", "pca_logistic")),
    ):
        assert set(model) >= {*MACROS, "intervals", "undefined"}
    assert list(metrics["classifier"]["per_class"]) == list(PATHOLOGIES)
    for entry in metrics["classifier"]["per_class"].values():
        assert set(entry) >= {
            "auroc",
            "average_precision",
            "f1",
            "f1_at_0_5",
            "threshold",
            "num_positive",
        }
    assert metrics["timings_s"] == made_run.record.timings_s
    assert metrics["provenance"] == made_run.record.provenance


def test_metrics_count_what_the_stages_wrote(metrics, made_run):
    split = pd.read_parquet(made_run.inputs.split / "split.parquet")["split"].value_counts()
    assert metrics["data"]["num_images"] == 240
    assert metrics["data"]["num_excluded"] == 3
    assert metrics["data"]["excluded_by_reason"] == {"duplicate_row": 1, "image_missing": 2}
    assert metrics["data"]["fingerprint"] == made_run.record.data_fingerprint
    assert [metrics["split"][f"num_{part}"] for part in ("train", "val", "test")] == [
        split["train"],
        split["val"],
        split["test"],
    ]
    assert metrics["vae"]["epochs"] == 4
    assert metrics["split"]["leaking_test_fraction"] == 0


def test_undefined_is_null_with_its_reason_and_in_no_mean(metrics):
    hernia = metrics["classifier"]["per_class"]["Hernia"]
    for name in ("auroc", "average_precision", "f1", "f1_at_0_5", "threshold"):
        assert hernia[name] is None
    assert hernia["undefined"]["auroc"] == "no positive image in test"
    assert hernia["undefined"]["threshold"] == "no positive image in validation"
    assert hernia["num_positive"] == 0
    assert set(hernia["intervals"]) == {"brier"}
    assert metrics["classifier"]["num_classes"]["macro_auroc"] == 13
    defined = [
        entry["auroc"]
        for entry in metrics["classifier"]["per_class"].values()
        if entry["auroc"] is not None
    ]
    assert metrics["classifier"]["macro_auroc"] == pytest.approx(np.mean(defined))


def test_intervals_hold_the_values(metrics):
    low, high = metrics["classifier"]["intervals"]["macro_auroc"]
    assert low < metrics["classifier"]["macro_auroc"] < high
    low, high = metrics["vae"]["intervals"]["test_l1"]
    assert low < metrics["vae"]["test_l1"] < high


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
    assert len(set(links)) == 13
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
        "Hernia: auroc, average precision, f1, f1 at 0.5, sensitivity (no positive image in test)"
        in words
    )


def test_cards_hold_what_a_reader_asks_for(report, metrics):
    card = (report[0] / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Not for clinical use." in card
    entry = metrics["classifier"]["per_class"]["Mass"]
    low, high = entry["intervals"]["auroc"]
    row = next(line for line in card.splitlines() if line.startswith("| Mass |"))
    assert f"| {entry['num_positive']} | {entry['auroc']:.3f} ({low:.3f} to {high:.3f}) |" in row
    assert "| all test images |" in card
    assert metrics["provenance"]["code"] in card
    sheet = (report[0] / "DATASHEET.md").read_text(encoding="utf-8")
    for expected in ("https://nihcc.app.box.com", "IEEE CVPR 2017", "acknowledgement of the NIH"):
        assert expected in sheet
    assert metrics["data"]["fingerprint"] in sheet
    assert "| index | The CSV has a row for it, and no such file is there. | 2 |" in sheet
    for text in (card, sheet):
        widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
        assert min(widths) > 2
        assert "&" not in text.replace("row 7 <b>& row 9</b>", "")


def test_page_escapes_what_the_data_says(page, text):
    assert "row 7 <b>& row 9</b>" in page.words
    assert "<b>" not in text


def test_same_inputs_give_the_same_bytes_and_progress_reaches_its_end(made_run, report, tmp_path):
    seen = []
    write_report(
        CONFIG, made_run.inputs, made_run.record, made_run.pixels, tmp_path, report=seen.append
    )
    for path in sorted(report[0].rglob("*.*")):
        again = tmp_path / path.relative_to(report[0])
        assert again.read_bytes() == path.read_bytes(), path.name
    assert [progress.done for progress in seen] == list(range(seen[-1].total + 1))


def test_another_seed_draws_other_images(made_run, report, tmp_path):
    config = CONFIG.model_copy(update={"seed": 7})
    tables = read_tables(made_run.inputs)
    results = measure(tables, made_run.pixels, seed=0)
    draw_images(config, made_run.inputs, tables, results, made_run.pixels, Gallery(tmp_path))
    drawn = (tmp_path / "reconstructions.png").read_bytes()
    assert drawn != (report[0] / "figures/reconstructions.png").read_bytes()


def test_a_run_too_small_for_anything_still_has_a_report(make_run, tmp_path):
    run = make_run(count=8, epochs=1, without=PATHOLOGIES, data={"root": "phantom"})
    split = pd.read_parquet(run.inputs.split / "split.parquet")
    images = split["image"].tolist()
    for stage, name in (
        ("split", "split"),
        ("latents", "latents"),
        ("classifier", "predictions"),
        ("baselines", "pca_logistic"),
    ):
        path = getattr(run.inputs, stage) / f"{name}.parquet"
        table = pd.read_parquet(path)
        table["split"] = "train"
        table.to_parquet(path, index=False)
    summary = write(run, tmp_path)
    assert len(images) == 8
    assert all(value is None for value in summary.values())
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "The films are synthetic" in page.words
    assert "There is no test image to show." in page.words
    assert "NIH" not in page.words
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["split"]["undefined"] == {"leaking_test_fraction": "no test image"}
    assert metrics["vae"]["undefined"]["test_l1"] == "no test image"
