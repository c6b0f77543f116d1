"""Finished reports compared from the command line, as the report stage leaves them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrmodel.evaluation.metrics import HEADLINE_METRICS
from cxrmodel.report.comparison.differences import compare_runs
from cxrmodel.report.comparison.finished_run import read_finished_run
from cxrmodel.report.comparison.page import differing_settings, letters_of
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
        "config": {"vae": {"lr": lr, "epochs": 3}, "data": {"root": "images"}},
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
    assert found.unpaired == ""
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
    assert found.unpaired
    assert found.macro["auroc"].value > 0
    assert found.macro["auroc"].interval is found.l1.interval is None


def held_out(report, patients, rows=slice(None), *, others="train"):
    """Leave a report some of its test images, and write which patients its run has where.

    Args:
        report: Folder.
        patients: Patient by image of all 160; those of images that are not left are in `others`.
        rows: Which images, by name, stay in test.
        others: Part of the other images.
    """
    path = Path(report) / "test_predictions.parquet"
    table = pd.read_parquet(path)
    names = [f"{row}.png" for row in range(160)]
    in_test = pd.Series(names)[rows].tolist()
    table[table["image"].isin(in_test)].to_parquet(path)
    parts = pd.DataFrame({"image": names, "patient_id": patients})
    parts["split"] = ["test" if name in in_test else others for name in names]
    parts.to_parquet(Path(report) / "split.parquet")
    change(report, lambda metrics: metrics["split"].update(num_test=len(in_test)))


PATIENTS = [str(row // 2) for row in range(160)]


def test_runs_of_grown_data_are_compared_on_the_test_images_that_they_share(reports, tmp_path):
    held_out(reports[0], PATIENTS, slice(0, 100))
    held_out(reports[1], PATIENTS, slice(40, 160))
    first, other = (read_finished_run(url) for url in reports)
    found = compare_runs(first, other)
    assert found.unpaired == ""
    scores = []
    for run in (first, other):
        table = run.table.set_index("image").loc[[f"{row}.png" for row in range(40, 100)]]
        scores.append(roc_auc_score(table["y_Mass"], table["p_Mass"]))
    assert found.auroc["Mass"].value == pytest.approx(scores[1] - scores[0])
    assert found.auroc["Mass"].interval[0] < found.auroc["Mass"].value
    assert "60 test images that both share" in found.basis
    page = tmp_path / "page.html"
    assert main([*reports, "--output", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "over the 60 test images that both share, macro AUROC is 0." in text
    assert "the difference is over the images that both share and neither run has seen" in text


@pytest.mark.parametrize("part", ["train", "val"])
def test_an_image_whose_patient_a_run_has_seen_never_counts(reports, part):
    """As of a split by rows: every patient of the first 40 images is also outside test."""
    held_out(reports[0], PATIENTS)
    strangers = [*PATIENTS[:120], *PATIENTS[:40]]
    held_out(reports[1], strangers, slice(0, 120), others=part)
    found = compare_runs(*(read_finished_run(url) for url in reports))
    assert "80 test images that both share, without 40 of a patient in train or val" in found.basis


def test_equal_test_parts_of_a_leaking_split_are_cut_to_unseen_patients(reports):
    for report in reports:
        held_out(report, PATIENTS)
        parts = pd.read_parquet(Path(report) / "split.parquet")
        leak = pd.DataFrame({"image": ["x.png"], "patient_id": ["7"], "split": ["train"]})
        pd.concat([parts, leak]).to_parquet(Path(report) / "split.parquet")
    found = compare_runs(*(read_finished_run(url) for url in reports))
    assert "158 test images that both share, without 2 of a patient in train" in found.basis


def test_an_image_with_other_labels_or_another_patient_does_not_count(reports):
    for report in reports:
        held_out(report, PATIENTS)
    path = Path(reports[1]) / "test_predictions.parquet"
    table = pd.read_parquet(path).sort_values("image", ignore_index=True)
    table.loc[0, "y_Mass"] = 1 - table.loc[0, "y_Mass"]
    table.loc[1, "patient_id"] = "another"
    table.to_parquet(path)
    found = compare_runs(*(read_finished_run(url) for url in reports))
    assert "158 test images that both share, without 2 of another patient or with" in found.basis


def test_a_report_that_does_not_say_what_was_trained_on_shares_no_part_of_a_test(reports):
    held_out(reports[0], PATIENTS, slice(0, 100))
    found = compare_runs(*(read_finished_run(url) for url in reports))
    assert "an older version of the package does not say what its run was trained" in found.unpaired
    assert found.macro["auroc"].interval is None


def test_runs_that_share_no_test_image_have_no_interval(reports):
    held_out(reports[0], PATIENTS, slice(0, 80))
    held_out(reports[1], PATIENTS, slice(80, 160))
    found = compare_runs(*(read_finished_run(url) for url in reports))
    assert found.unpaired == "There are fewer than 2 test patients that both share"


def test_parts_that_are_no_table_are_named(reports, capsys):
    (Path(reports[1]) / "split.parquet").write_bytes(b"no table")
    assert f"{reports[1]}/split.parquet cannot be read" in refusal([*reports], capsys)


def test_only_differing_settings_are_shown():
    one, two = {"vae": {"lr": 1, "epochs": 3}}, {"vae": {"lr": 2, "epochs": 3, "seed": 4}}
    assert differing_settings([one, two]) == [("vae.lr", ["1", "2"]), ("vae.seed", ["\u2013", "4"])]


def test_the_command_writes_one_page_that_needs_nothing(reports, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main([reports[0], f"{reports[1]}/report.html", "--output", str(page)]) == 0
    assert capsys.readouterr().out == f"comparison: {page}\n"
    text = page.read_text(encoding="utf-8")
    assert "better than chance explains" in text
    assert "<code>vae.lr</code>" in text
    assert "vae.epochs" not in text
    assert "&lt;abc&gt;" in text
    assert "http" not in text.split("</style>")[1]


def test_a_report_without_images_is_named(reports, tmp_path, capsys):
    assert main([*reports, "--output", str(tmp_path / "page")]) == 0
    notes = capsys.readouterr().err.splitlines()
    expected = [
        (url, file) for url in reports for file in ("viewer.parquet", "figures/samples.png")
    ]
    assert len(notes) == len(expected)
    for note, (url, file) in zip(notes, expected, strict=True):
        assert note.startswith(f"note: {url} has no {file}, so its images are not shown")


def test_urls_are_read_as_folders_are(reports, tmp_path):
    assert main([f"file://{url}" for url in reports] + ["--output", str(tmp_path / "page")]) == 0


@pytest.mark.parametrize("missing", ["metrics.json", "test_predictions.parquet"])
def test_what_is_no_report_is_named(reports, tmp_path, capsys, missing):
    (tmp_path / "b" / missing).unlink()
    assert main([*reports, "--output", str(tmp_path / "page")]) == 2
    assert f"{reports[1]} has no {missing}, so it is " in capsys.readouterr().err


def change(report, edit):
    """Let a function change what a report's metrics.json says."""
    path = Path(report) / "metrics.json"
    metrics = json.loads(path.read_text())
    edit(metrics)
    path.write_text(json.dumps(metrics))


def refusal(arguments, capsys):
    """Run the command, which must refuse, and return the one line it says."""
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        (lambda m: m["classifier"].pop("macro_auroc"), "it has no classifier.macro_auroc"),
        (
            lambda m: m["classifier"]["per_class"]["Mass"].pop("threshold"),
            "it has no classifier.per_class.Mass.threshold",
        ),
        (lambda m: m.pop("vae"), "it has no vae"),
        (lambda m: m.pop("provenance"), "it has no provenance"),
        (lambda m: m["split"].pop("num_test"), "it has no split.num_test"),
        (lambda m: m.update(classifier=None), "classifier: Input should be"),
        (lambda m: m["vae"].update(test_l1="low"), "vae.test_l1: Input should be a valid number"),
        (lambda m: m["config"].update(data=["images"]), "config.data: Input should be"),
    ],
)
def test_metrics_of_another_version_are_named_by_file_and_field(reports, capsys, edit, place):
    change(reports[1], edit)
    line = refusal([*reports], capsys)
    assert f"{reports[1]}/metrics.json was written by another version" in line
    assert place in line
    assert line.endswith("run the pipeline again with the same settings.")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"<html></html>"])
def test_metrics_that_are_no_json_are_named(reports, capsys, content):
    (Path(reports[1]) / "metrics.json").write_bytes(content)
    assert f"{reports[1]}/metrics.json is not JSON" in refusal([*reports], capsys)


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_json_that_is_no_object_is_refused(reports, capsys, content):
    (Path(reports[1]) / "metrics.json").write_text(content)
    assert "metrics.json was written by another version" in refusal([*reports], capsys)


@pytest.mark.parametrize("name", ["metrics.json", "test_predictions.parquet", "viewer.parquet"])
def test_a_folder_in_the_place_of_a_file_is_named(reports, capsys, name):
    (Path(reports[1]) / name).unlink(missing_ok=True)
    (Path(reports[1]) / name).mkdir()
    assert f"{reports[1]}/{name} cannot be read (IsADirectoryError" in refusal([*reports], capsys)


@pytest.mark.parametrize(
    "name", ["test_predictions.parquet", "viewer.parquet", "figures/samples.png"]
)
def test_a_damaged_file_is_named(reports, capsys, name):
    path = Path(reports[1]) / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"neither a table nor an image")
    assert f"{reports[1]}/{name} cannot be read" in refusal([*reports], capsys)


@pytest.mark.parametrize("column", ["image", "l1", "y_Mass"])
def test_predictions_without_a_column_are_refused(reports, capsys, column):
    path = Path(reports[1]) / "test_predictions.parquet"
    pd.read_parquet(path).drop(columns=column).to_parquet(path)
    assert f"{path} has no column {column}" in refusal([*reports], capsys)


def test_predictions_of_another_run_are_refused(reports, capsys):
    path = Path(reports[1]) / "test_predictions.parquet"
    pd.read_parquet(path).drop(columns=["y_Mass", "p_Mass"]).to_parquet(path)
    assert "are of different runs: only one of them has Mass" in refusal([*reports], capsys)


@pytest.mark.parametrize(
    "url", ["nosuch://bucket/report", "http://127.0.0.1:9/report", "/no/such/folder", ""]
)
def test_a_place_without_a_report_is_refused(reports, capsys, tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    assert refusal([reports[0], url], capsys).startswith("error: ")


@pytest.mark.parametrize("output", ["", "no/such/folder/page.html", "a"])
def test_a_page_that_cannot_be_written_is_refused(reports, capsys, tmp_path, output):
    line = refusal([*reports, "--output", str(tmp_path / output)], capsys)
    assert f"could not be written to {tmp_path / output}" in line


def test_more_runs_than_letters_are_all_shown(reports, tmp_path):
    page = tmp_path / "page.html"
    assert main([*reports * 14, "--output", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    for letter in ("Z", "AA", "AB"):
        assert f"<dt>{letter}</dt>" in text
        assert f">{letter} \u2212 A</th>" in text
    assert text.count('class="verdict"') == 27
    assert letters_of(703)[-3:] == ["ZY", "ZZ", "AAA"]


def test_a_report_given_twice_is_said_to_be_the_same(reports, tmp_path):
    page = tmp_path / "page.html"
    assert main([reports[0], reports[0], reports[1], "--output", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("all numbers are the same; are these the same report?") == 1


def test_runs_of_other_labels_show_them_all_and_say_so(reports, tmp_path):
    path = Path(reports[1]) / "test_predictions.parquet"
    new = {"y_Mass": "y_Hernia", "p_Mass": "p_Hernia"}
    pd.read_parquet(path).rename(columns=new).to_parquet(path)

    def rename(metrics):
        classes = metrics["classifier"]["per_class"]
        classes["Hernia"] = classes.pop("Mass")

    change(reports[1], rename)
    page = tmp_path / "page.html"
    assert main([*reports, "--output", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "Only one of them has Hernia, Mass, so there is no interval" in text
    for name in ("Edema", "Mass", "Hernia"):
        assert f'<th scope="row">{name}</th>' in text
    found = compare_runs(*(read_finished_run(url) for url in reports))
    assert found.unpaired
    assert list(found.auroc) == ["Edema"]


def test_an_interval_is_that_of_its_own_pathology_whatever_the_order_in_the_file(reports):
    names = ("Edema", "Mass")
    first, other = (read_finished_run(url) for url in reports)
    expected = compare_runs(first, other).auroc
    for url in reports:
        change(url, lambda m: m["classifier"].update(
            per_class=dict(sorted(m["classifier"]["per_class"].items(), reverse=True))
        ))  # fmt: skip
    found = compare_runs(*(read_finished_run(url) for url in reports)).auroc
    assert {name: found[name] for name in names} == {name: expected[name] for name in names}


def test_scores_that_are_null_are_shown_as_such(reports, tmp_path):
    def empty(metrics):
        metrics["classifier"].update({f"macro_{name}": None for name in HEADLINE_METRICS})
        metrics["classifier"]["per_class"]["Mass"] = {"auroc": None, "threshold": None}
        metrics["vae"]["test_l1"] = None

    change(reports[1], empty)
    page = tmp_path / "page.html"
    assert main([*reports, "--output", str(page)]) == 0
    assert "is undefined in one of them" in page.read_text(encoding="utf-8")


def test_names_are_never_markup(reports, tmp_path):
    evil = "<script>alert(1)</script>"
    strange = (tmp_path / "<b>&\"'").resolve()
    shutil.copytree(reports[1], strange)
    change(strange, lambda m: m["config"].update(preset=evil))
    change(strange, lambda m: m["config"]["vae"].update(lr=evil))
    change(strange, lambda m: m["provenance"].update(code=evil))
    page = tmp_path / "page.html"
    assert main([reports[0], str(strange), "--output", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert evil not in text
    assert "<b>&" not in text
    assert "<code>preset</code>" in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 3


def test_one_report_is_too_few(reports, tmp_path, capsys):
    assert main([reports[0], "--output", str(tmp_path / "page")]) == 2
    assert capsys.readouterr().err == (
        "error: A comparison needs two reports or more, and 1 was given.\n"
    )
