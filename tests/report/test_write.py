import numpy as np
import pandas as pd
import pytest

from cxrmodel.config import ReportConfig
from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.report.write import write_report

CONFIG = ReportConfig(num_reconstructions=3, tsne_points=60)
FIGURES = {
    "baselines.png",
    "boxed.png",
    "cooccurrence.png",
    "extremes.png",
    "neighbours.png",
    "one_per_pathology.png",
    "samples.png",
    "traversals.png",
    "auroc.png",
    "f1.png",
    "grey_levels.png",
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


def test_writes_page_numbers_and_figures(report):
    directory = report[0]
    written = {"report.html", "metrics.json", "MODEL_CARD.md", "DATASHEET.md", "figures"}
    written |= {"test_predictions.parquet", "val_predictions.parquet"}
    written |= {"split.parquet", "viewer.parquet"}
    assert {path.name for path in directory.iterdir()} == written
    assert {path.name for path in (directory / "figures").iterdir()} == FIGURES


def test_the_parts_of_all_images_are_kept_for_a_comparison(report, made_run):
    parts = pd.read_parquet(report[0] / "split.parquet")
    split = pd.read_parquet(made_run.inputs.split / "split.parquet")
    patients = pd.read_parquet(made_run.inputs.index / "index.parquet")[["image", "patient_id"]]
    assert parts.columns.tolist() == ["image", "patient_id", "split"]
    assert parts.astype("str").equals(
        split.merge(patients, on="image")[parts.columns.tolist()].astype("str")
    )


def test_predictions_of_validation_and_test_are_kept(report, run):
    parts = pd.read_parquet(report[0] / "split.parquet").set_index("image")["split"]
    for part in ("val", "test"):
        table = pd.read_parquet(report[0] / f"{part}_predictions.parquet")
        assert set(table["image"]) == set(parts.index[parts == part])
        latents = run.latents.set_index("image").loc[table["image"], "l1"]
        assert table["l1"].tolist() == latents.tolist()


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
    assert metrics["training_speed"] == made_run.record.training_speed
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


def test_cards_hold_what_a_reader_asks_for(report, metrics):
    card = (report[0] / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Not for clinical use." in card
    entry = metrics["classifier"]["per_class"]["Mass"]
    low, high = entry["intervals"]["auroc"]
    row = next(line for line in card.splitlines() if line.startswith("| Mass |"))
    assert f"| {entry['num_positive']} | {entry['auroc']:.3f} ({low:.3f} to {high:.3f}) |" in row
    assert "| all test images |" in card
    assert metrics["provenance"]["code"] in card
    speed = "trained on 12.3 images per second and spent 0.2 % of its time waiting for them"
    assert speed in card
    assert speed in (report[0] / "report.html").read_text(encoding="utf-8")
    sheet = (report[0] / "DATASHEET.md").read_text(encoding="utf-8")
    for expected in ("https://nihcc.app.box.com", "IEEE CVPR 2017", "acknowledgement of the NIH"):
        assert expected in sheet
    assert metrics["data"]["fingerprint"] in sheet
    assert "| index | The CSV has a row for it, and no such file is there. | 2 |" in sheet
    for text in (card, sheet):
        widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
        assert min(widths) > 2
        assert "&" not in text.replace("row 7 <b>& row 9</b>", "")


def test_same_inputs_give_the_same_bytes_and_progress_reaches_its_end(made_run, report, tmp_path):
    seen = []
    write_report(
        CONFIG, made_run.inputs, made_run.record, made_run.pixels, tmp_path, report=seen.append
    )
    for path in sorted(report[0].rglob("*.*")):
        again = tmp_path / path.relative_to(report[0])
        assert again.read_bytes() == path.read_bytes(), path.name
    assert [progress.done for progress in seen] == list(range(seen[-1].total + 1))
