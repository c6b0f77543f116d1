"""Settings compared on validation by hand-made reports, and the page that says which was chosen."""

import json
import re
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrmodel.evaluation.metrics import HEADLINE_METRICS
from cxrmodel.report.comparison.sweep import FailedRun, SweptRun, compare_settings
from cxrmodel.report.comparison.sweep_page import choice_text, sweep_files

LABELS = ("Edema", "Mass")
SKILL = {"plain": 0.4, "<better>": 2.0, "equal": 0.4}
L1 = {"plain": 0.05, "<better>": 0.06, "equal": 0.04}

NO_CONFIGS = {name: {} for name in SKILL}


def predictions(setting, seed, part, count=120):
    """A table of one part: the same labels for all, scores as good as the setting's skill."""
    truth = np.random.default_rng([7, part == "test"])
    labels = (truth.random((count, 2)) < 0.4).astype(np.int8)
    noise = np.random.default_rng([seed, len(setting), part == "test"])
    scores = SKILL[setting] * labels + noise.normal(size=labels.shape)
    table = pd.DataFrame({"image": [f"{part}{row}.png" for row in range(count)]})
    table["patient_id"] = [f"{part}{row // 2}" for row in range(count)]
    table["l1"] = L1[setting] + 0.001 * noise.normal(size=count)
    for column, name in enumerate(LABELS):
        table[f"y_{name}"] = labels[:, column]
        table[f"p_{name}"] = (1 / (1 + np.exp(-scores[:, column]))).astype(np.float32)
    return table


def auroc(table):
    return float(np.mean([roc_auc_score(table[f"y_{x}"], table[f"p_{x}"]) for x in LABELS]))


def write_run(folder, setting, seed):
    place = folder / f"{len(setting)}-{SKILL[setting]}-{setting.strip('<>')}-{seed}"
    place.mkdir()
    predictions(setting, seed, "val").sample(frac=1, random_state=seed).to_parquet(
        place / "val_predictions.parquet"
    )
    test = predictions(setting, seed, "test")
    test.to_parquet(place / "test_predictions.parquet")
    classifier = {f"macro_{name}": auroc(test) for name in HEADLINE_METRICS}
    classifier["per_class"] = {name: {"auroc": 0.5, "threshold": 0.5} for name in LABELS}
    metrics = {
        "classifier": classifier,
        "vae": {"test_l1": float(test["l1"].mean())},
        "split": {"num_test": len(test)},
        "provenance": {"code": "abc"},
    }
    (place / "metrics.json").write_text(json.dumps(metrics))
    return SweptRun(setting, seed, f"{place}/report.html", f"bundle-{setting}-{seed}")


@pytest.fixture
def runs(tmp_path):
    """Two seeds of each setting, in the order in which a sweep runs them."""
    return [write_run(tmp_path, setting, seed) for seed in (0, 1) for setting in SKILL]


def test_means_spreads_and_paired_differences(runs):
    found = compare_settings(runs, [], "macro_auroc")
    assert [one.name for one in found.settings] == list(SKILL)
    assert (found.num_images, found.num_patients) == (120, 60)
    by_hand = {
        setting: [auroc(predictions(setting, seed, "val")) for seed in (0, 1)] for setting in SKILL
    }
    for one in found.settings:
        spread = one.scores["macro_auroc"]
        assert spread.by_seed == pytest.approx(by_hand[one.name])
        assert spread.mean.value == pytest.approx(statistics.mean(by_hand[one.name]))
        assert spread.deviation == pytest.approx(statistics.stdev(by_hand[one.name]))
    plain, better, equal = found.settings
    assert plain.changes == plain.wins == {}
    change = better.changes["macro_auroc"]
    expected = statistics.mean(by_hand["<better>"]) - statistics.mean(by_hand["plain"])
    assert change.value == pytest.approx(expected)
    assert change.verdict == "higher"
    assert equal.changes["macro_auroc"].verdict == "unclear"
    assert better.wins["macro_auroc"] == 2
    assert better.changes["l1"].value == pytest.approx(0.01, abs=2e-3)
    assert better.wins["l1"] == 0  # a higher error is not better
    assert equal.wins["l1"] == 2


def test_the_interval_is_that_of_the_difference_of_means(runs):
    """With one seed and errors alone it is what resampled patients say of mean differences."""
    found = compare_settings([run for run in runs if run.seed == 0], [], "l1")
    tables = [predictions(setting, 0, "val") for setting in ("plain", "equal")]
    change = (tables[1]["l1"] - tables[0]["l1"]).to_numpy().reshape(-1, 2).sum(axis=1)  # by patient
    rng = np.random.default_rng(3)
    drawn = rng.choice(change, (4000, len(change))).sum(axis=1) / 120
    assert found.settings[2].changes["l1"].interval == pytest.approx(
        np.percentile(drawn, [2.5, 97.5]), abs=5e-5
    )
    assert found.settings[0].scores["l1"].deviation is None


@pytest.mark.parametrize("choose_by, chosen", [("macro_auroc", "<better>"), ("l1", "equal")])
def test_test_is_read_for_the_chosen_setting_alone(runs, choose_by, chosen):
    for run in runs:
        if run.setting != chosen:
            Path(run.report).with_name("test_predictions.parquet").unlink()
            Path(run.report).with_name("metrics.json").unlink()
    found = compare_settings(runs, [], choose_by)
    assert found.chosen.name == chosen
    test = [predictions(chosen, seed, "test") for seed in (0, 1)]
    assert found.test["macro_auroc"].by_seed == pytest.approx([auroc(table) for table in test])
    assert found.test["l1"].mean.value == pytest.approx(
        statistics.mean(table["l1"].mean() for table in test)
    )
    low, high = found.test["macro_auroc"].mean.interval
    assert low < found.test["macro_auroc"].mean.value < high
    page = sweep_files("mine", found, NO_CONFIGS)["sweep.html"].decode()
    assert page.count("bundle-") == 2
    assert f"{found.test['macro_auroc'].mean.value:.3f}" in page
    numbers = json.loads(sweep_files("mine", found, NO_CONFIGS)["sweep.json"])
    assert numbers["chosen"] == chosen
    assert {run["bundle"] for run in numbers["runs_of_chosen"]} == {
        f"bundle-{chosen}-{seed}" for seed in (0, 1)
    }


def test_the_lead_over_the_second_best_tells_whether_the_choice_is_chance(runs):
    found = compare_settings(runs, [], "macro_auroc")
    assert found.second in ("plain", "equal")
    assert found.lead.verdict == "higher"
    others = [run for run in runs if run.setting != "<better>"]
    close = compare_settings(others, [], "macro_auroc")
    assert close.lead.verdict == "unclear"
    page = sweep_files("mine", close, NO_CONFIGS)["sweep.html"].decode()
    assert "which the choice of validation patients may explain" in page
    assert "With one seed nothing tells" not in page
    one = compare_settings([run for run in runs if run.seed == 0], [], "macro_auroc")
    page = sweep_files("mine", one, NO_CONFIGS)["sweep.html"].decode()
    assert "more than the choice of validation patients explains" in page
    assert "With one seed nothing tells what another seed would change." in page
    assert "number of seeds that agree" not in page


def test_a_setting_without_all_its_seeds_takes_no_part_and_is_named(runs):
    failed = [FailedRun("<better>", 1, "the loss is <not> finite")]
    kept = [run for run in runs if (run.setting, run.seed) != ("<better>", 1)]
    found = compare_settings(kept, failed, "macro_auroc")
    assert [one.name for one in found.settings] == ["plain", "equal"]
    configs = {name: {"vae": {"lr": number}} for number, name in enumerate(SKILL)}
    page = sweep_files("mine", found, configs)["sweep.html"].decode()
    assert "the loss is &lt;not&gt; finite" in page
    assert "<better>" not in page
    assert "vae.lr" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)


def test_a_setting_that_was_validated_on_other_images_is_named(runs):
    path = Path(runs[1].report).with_name("val_predictions.parquet")
    table = pd.read_parquet(path)
    table.assign(y_Mass=1 - table["y_Mass"]).to_parquet(path)
    found = compare_settings(runs, [], "macro_auroc")
    assert [one.name for one in found.settings] == ["plain", "equal"]
    assert {(one.setting, one.seed) for one in found.failed} == {("<better>", 0), ("<better>", 1)}
    assert "not those of plain" in found.failed[0].reason


def test_nothing_to_choose_from(runs):
    none = compare_settings([], [FailedRun("plain", 0, "no data")], "l1")
    page = sweep_files("mine", none, {"plain": {}})["sweep.html"].decode()
    assert "no setting has finished with all its seeds" in page
    assert choice_text(none) == "No setting could be chosen."
    for run in runs:
        path = Path(run.report).with_name("val_predictions.parquet")
        pd.read_parquet(path)[["image", "patient_id", "l1"]].to_parquet(path)
    found = compare_settings(runs, [], "macro_auroc")
    assert found.chosen is None
    page = sweep_files("mine", found, NO_CONFIGS)["sweep.html"].decode()
    assert "undefined on validation for all of them (nothing is classified)" in page
