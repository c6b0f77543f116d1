"""Finished reports compared from the command line, as the report stage leaves them."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrmodel.evaluation.evaluate import HEADLINE_METRICS
from cxrmodel.report.comparison import compare_runs, differing_settings, read_finished_run
from flows.compare import main

NAMES = ("Edema", "Mass")


def write_report(folder, *, skill, seed=0, count=160, lr=1e-3, other_images=False):
    """A report's folder whose scores know the labels as well as `skill` says."""
    rng = np.random.default_rng(5)
    labels = (rng.random((count, 2)) < 0.4).astype(np.uint8)
    scores = skill * labels + np.random.default_rng(seed).normal(size=labels.shape)
    probabilities = 1 / (1 + np.exp(-scores))
    table = pd.DataFrame({"image": [f"{row + 1000 * other_images}.png" for row in range(count)]})
    table["patient_id"] = [str(row // 2) for row in range(count)]
    table["l1"] = (0.03 + 0.01 * skill * rng.uniform(0.9, 1.1, count)).astype(np.float32)
    per_class = {}
    for column, name in enumerate(NAMES):
        table[f"y_{name}"] = labels[:, column]
        table[f"p_{name}"] = probabilities[:, column].astype(np.float32)
        score = roc_auc_score(labels[:, column], table[f"p_{name}"])
        per_class[name] = {"auroc": score, "threshold": 0.6}
    mean = float(np.mean([entry["auroc"] for entry in per_class.values()]))
    metrics = {
        "classifier": {f"macro_{m}": mean for m in HEADLINE_METRICS} | {"per_class": per_class},
        "vae": {"test_l1": float(table["l1"].mean())},
        "split": {"num_test": count},
        "provenance": {"code": "<abc>"},
        "config": {"vae": {"lr": lr, "epochs": 3}, "data": {"root": "films"}},
    }
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics))
    table.sample(frac=1, random_state=seed).to_parquet(folder / "test_predictions.parquet")
    return str(folder)


@pytest.fixture
def reports(tmp_path):
    return write_report(tmp_path / "a", skill=0.2), write_report(tmp_path / "b", skill=2.0, lr=1e-4)


def test_differences_are_paired_on_the_same_images_whatever_their_order(reports):
    first, other = (read_finished_run(url) for url in reports)
    found = compare_runs(first, other)
    assert found.is_paired
    entries = [run.metrics["classifier"]["per_class"] for run in (first, other)]
    assert found.auroc["Mass"].value == entries[1]["Mass"]["auroc"] - entries[0]["Mass"]["auroc"]
    for difference in (found.macro["auroc"], found.auroc["Mass"], found.l1):
        low, high = difference.interval
        assert low < difference.value < high
        assert difference.verdict == "higher"
    same = compare_runs(first, first)
    assert same.macro["auroc"].interval == same.l1.interval == (0, 0)


def test_other_images_give_no_interval(reports, tmp_path):
    strange = write_report(tmp_path / "c", skill=2.0, other_images=True)
    found = compare_runs(read_finished_run(reports[0]), read_finished_run(strange))
    assert not found.is_paired
    assert found.macro["auroc"].value > 0
    assert found.macro["auroc"].interval is found.l1.interval is None


def test_only_differing_settings_are_shown():
    one, two = {"vae": {"lr": 1, "epochs": 3}}, {"vae": {"lr": 2, "epochs": 3, "seed": 4}}
    assert differing_settings([one, two]) == [("vae.lr", ["1", "2"]), ("vae.seed", ["\u2013", "4"])]


def test_the_command_writes_one_page_that_needs_nothing(reports, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main([reports[0], f"{reports[1]}/report.html", "--output", str(page)]) == 0
    assert capsys.readouterr().out == f"comparison: {page}\n"
    text = page.read_text(encoding="utf-8")
    assert "better than chance allows" in text
    assert "<code>vae.lr</code>" in text
    assert "vae.epochs" not in text
    assert "&lt;abc&gt;" in text
    assert "http" not in text.split("</style>")[1]


def test_urls_are_read_as_folders_are(reports, tmp_path):
    assert main([f"file://{url}" for url in reports] + ["--output", str(tmp_path / "page")]) == 0


@pytest.mark.parametrize("missing", ["metrics.json", "test_predictions.parquet"])
def test_what_is_no_report_is_named(reports, tmp_path, capsys, missing):
    (tmp_path / "b" / missing).unlink()
    assert main([*reports, "--output", str(tmp_path / "page")]) == 1
    assert f"{reports[1]} has no {missing}, so it is not the folder" in capsys.readouterr().err


def test_one_report_is_too_few(reports, tmp_path, capsys):
    assert main([reports[0], "--output", str(tmp_path / "page")]) == 1
    assert capsys.readouterr().err == (
        "error: A comparison needs two reports or more, and 1 was given.\n"
    )
