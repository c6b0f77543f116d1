"""The numbers that the report itself puts together, and what becomes of them in metrics.json."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from cxrmodel.evaluation.resolution import to_unit
from cxrmodel.report.measure import leaking_test_fraction, locate_errors
from cxrmodel.training.encoding import load_vae, reconstruct


def locate(made_run, run):
    return locate_errors(run, made_run.pixels, seed=0)


def test_the_errors_are_those_of_the_reconstruction_on_test(made_run, run):
    found = locate(made_run, run)
    boxes = run.boxes[run.boxes["split"] == "test"]
    assert list(found) == ["test"]
    overall = found["test"].overall
    assert (overall.num_boxes, overall.num_images) == (len(boxes), len(boxes))
    assert set(found["test"].per_class) == set(boxes["pathology"])
    inside = []
    vae, pixels = load_vae(made_run.inputs.vae), made_run.pixels
    for box in boxes.itertuples():
        original = pixels.read(pixels.rows_of([box.image]))
        error = np.abs(reconstruct(vae, original, device="cpu") - to_unit(original))[0]
        edges = (box.y, box.y + box.height, box.x, box.x + box.width)
        edges = (edge * box.file_width / 1024 for edge in edges)
        top, bottom, left, right = (int(np.ceil(edge - 0.5)) for edge in edges)
        inside.append(error[top:bottom, left:right].mean())
    assert overall.error_inside.value == pytest.approx(np.mean(inside), rel=1e-5)


def test_of_few_test_patients_validation_is_shown_beside(made_run, run):
    boxes = run.boxes
    test_patients = boxes.loc[boxes["split"] == "test", "patient_id"].unique()
    few = boxes[(boxes["split"] != "test") | boxes["patient_id"].isin(test_patients[:3])]
    found = locate(made_run, dataclasses.replace(run, boxes=few))
    assert found["test"].overall.num_patients == 3
    assert found["test"].overall.warning is not None
    outside = few[few["split"] != "train"]
    assert found["outside_train"].overall.num_boxes == len(outside)


def test_without_a_box_list_there_is_nothing(made_run, run):
    assert locate(made_run, dataclasses.replace(run, boxes=run.boxes[:0])) == {}


def test_the_numbers_are_in_the_document(metrics):
    found = metrics["audit"]["localisation"]
    assert (found["part"], found["num_tiles"], found["outside_train"]) == ("test", 32, None)
    for group in (found["overall"], *found["per_class"].values()):
        assert group["num_boxes"] > 0
        for name in ("pointing_game", "chance", "other_images", "gain", "error_difference"):
            assert set(group[name]) == {"value", "interval", "reason"}
    assert found["overall"]["gain"]["value"] == pytest.approx(
        found["overall"]["pointing_game"]["value"] - found["overall"]["chance"]["value"]
    )


def test_similarity_and_calibration_have_intervals_or_reasons(metrics):
    vae, calibration = metrics["vae"], metrics["classifier"]["calibration"]
    low, high = vae["intervals"]["test_ssim"]
    assert low < vae["test_ssim"] < high
    assert vae["test_ms_ssim"] is None
    assert vae["undefined"]["test_ms_ssim"].startswith("images of less than 161 px")
    group = metrics["audit"]["reconstruction"]["view AP"]
    assert 0.6 < group["ssim"]["value"] < 0.9
    assert group["ms_ssim"]["reason"].startswith("images of less than 161 px")
    low, high = calibration["intervals"]["macro_ece_after"]
    assert low < calibration["macro_ece_after"] < high
    for entry in metrics["classifier"]["per_class"].values():
        own = entry["calibration"]
        low, high = own["intervals"]["ece_before"]
        assert low <= own["ece_before"] <= high
    errors = metrics["baselines"]["reconstruction"]
    assert errors["thumbnail_32_ssim"] > errors["thumbnail_16_ssim"] > 0


def test_the_leak_is_counted_by_patient():
    images = pd.DataFrame(
        {"split": ["train", "val", "test", "test", "test", "test"], "patient_id": list("abaabc")}
    )
    assert leaking_test_fraction(images) == 0.5
    assert leaking_test_fraction(images[:2]) is None
