"""Probabilities on another scale, and a scale from local labels."""

import json

import numpy as np
import pandas as pd
import pytest

from cxrmodel.errors import DataError
from cxrmodel.inference.bundle import read_bundle
from cxrmodel.inference.calibration import (
    calibrated,
    read_labels,
    recalibrate,
    rescale,
    write_bundle,
)
from cxrmodel.inference.predictor import Model


def logit(p):
    p = np.asarray(p, np.float64)
    return np.log(p) - np.log1p(-p)


def test_every_part_of_a_bundle_is_rescaled_alike(run, bundle):
    old = read_bundle(bundle)
    new = rescale(old, {"Effusion": (0.5, -1.0)})
    pixels = run.pixels.read(np.arange(20))
    before, after = (Model(which, "cpu").score(pixels) for which in (old, new))
    np.testing.assert_allclose(
        logit(after["p_Effusion"]), 0.5 * logit(before["p_Effusion"]) - 1, atol=1e-4
    )
    np.testing.assert_array_equal(after["call_Effusion"], before["call_Effusion"])
    np.testing.assert_array_equal(after["p_Mass"], before["p_Mass"])
    np.testing.assert_allclose(
        logit(new.reference["p_Effusion"]), 0.5 * logit(old.reference["p_Effusion"]) - 1, atol=1e-4
    )


def test_a_bundles_own_calibration_is_the_reports(run, bundle):
    metrics = json.loads((run.stage("report") / "metrics.json").read_text())
    fitted = metrics["classifier"]["per_class"]["Infiltration"]["calibration"]
    old = read_bundle(bundle)
    new = calibrated(old)
    expected = fitted["slope"] * logit(old.reference["p_Infiltration"]) + fitted["intercept"]
    np.testing.assert_allclose(logit(new.reference["p_Infiltration"]), expected, atol=1e-4)
    pd.testing.assert_frame_equal(calibrated(new).reference, new.reference)  # once is enough


@pytest.fixture
def scored(bundle):
    """300 images of 150 patients whose Effusion is far less frequent than the model says."""
    rng = np.random.default_rng(1)
    labels = read_bundle(bundle).labels
    logits = rng.normal(0, 1.5, 300)
    truth = rng.random(300) < 1 / (1 + np.exp(-(logits - 2)))
    table = {"patient_id": np.arange(300) // 2}
    for label in labels:
        table[f"p_{label}"] = 1 / (1 + np.exp(-logits))
        table[label] = np.nan
    return pd.DataFrame(table).assign(Effusion=truth.astype(float))


def test_local_labels_bring_the_scale_back(bundle, scored):
    old = read_bundle(bundle)
    new, fits = recalibrate(old, scored)
    fit = next(fit for fit in fits if fit.label == "Effusion")
    assert fit.slope == pytest.approx(1, abs=0.4)
    assert fit.intercept == pytest.approx(-2, abs=0.5)
    low, high = fit.interval
    assert 0 < low < fit.brier_gain < high
    assert new.description["parent"]["digest"] == old.digest
    assert new.description["parent"]["recalibrated"] == ["Effusion"]
    assert new.description["thresholds"]["Effusion"] == fit.threshold
    assert new.description["thresholds"]["Mass"] == old.description["thresholds"]["Mass"]


def test_labels_of_nothing_but_noise_gain_nothing(bundle, scored):
    rng = np.random.default_rng(2)
    noise = scored.assign(Effusion=(rng.random(300) < 0.5).astype(float), p_Effusion=0.5)
    _, fits = recalibrate(read_bundle(bundle), noise)
    fit = next(fit for fit in fits if fit.label == "Effusion")
    assert fit.interval[0] <= 0


def test_too_few_patients_are_an_error_with_numbers(bundle, scored):
    few = scored.head(18)
    with pytest.raises(DataError, match="10 patients with a positive image"):
        recalibrate(read_bundle(bundle), few)


def test_a_written_bundle_is_read_as_it_was(bundle, scored, tmp_path):
    new, _ = recalibrate(read_bundle(bundle), scored)
    write_bundle(new, tmp_path / "new")
    read = read_bundle(tmp_path / "new")
    assert read.description == new.description
    pd.testing.assert_frame_equal(read.reference, new.reference)
    with pytest.raises(FileExistsError):
        write_bundle(new, tmp_path / "new")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,Effusion\na.png,1\n", "no column patient_id"),
        ("image,patient_id\na.png,1\n", "no column of a label"),
        ("image,patient_id,Effusion\na.png,1,yes\n", "has 'yes'; a label is 1, 0 or left empty"),
        ("image,patient_id,Effusion\na.png,1,2\n", "has '2'; a label is 1, 0 or left empty"),
        ("image,patient_id,Effusion\n,1,1\n", "row 1, has no image"),
        ("image,patient_id,Effusion\na.png,1,1\nb.png,,1\n", "row 2, has no patient_id"),
        ("image,patient_id,Effusion\na.png,1,1\na.png,1,0\n", "names the image a.png twice"),
        ("image,patient_id,Mass,y_Mass\na.png,1,1,0\n", "has two columns for Mass"),
        ("image,image ,patient_id,Mass\na.png,b.png,1,1\n", "has two columns for image"),
        ("", "cannot be read as a table"),
        ("image,patient_id,Effusion\na.png,1,1,1,1\n", "cannot be read as a table"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_labels(path, ("Effusion", "Mass"))


def test_labels_may_be_left_empty(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("image,patient_id,Effusion\na.png,007,1\nb.png,8,\n")
    table = read_labels(path, ("Effusion", "Mass"))
    assert table["patient_id"].tolist() == ["007", "8"]
    assert table["Effusion"].isna().tolist() == [False, True]
    assert table["Mass"].isna().all()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_labels_come_as_office_programs_write_them(tmp_path, separator, encoding):
    path = tmp_path / "labels.csv"
    rows = (("image", "patient_id", " Effusion "), ("ä.png", "1", "TRUE"), ("b.png", "2", "False"))
    path.write_text("\n".join(separator.join(row) for row in rows), encoding=encoding)
    table = read_labels(path, ("Effusion",))
    assert table["image"].tolist() == ["ä.png", "b.png"]
    assert table["Effusion"].tolist() == [1, 0]


def test_an_order_of_images_is_never_reversed(bundle, scored):
    new, fits = recalibrate(read_bundle(bundle), scored.assign(Effusion=1 - scored["Effusion"]))
    fit = next(fit for fit in fits if fit.label == "Effusion")
    assert (fit.slope, fit.threshold) == (0, None)
    assert "no threshold, as its probability is no higher in positive images" in fit.sentence()
    assert new.description["thresholds"]["Effusion"] is None
    share = 1 - scored["Effusion"].mean()
    assert new.reference["p_Effusion"].to_numpy() == pytest.approx(share, abs=0.01)


def test_a_scale_that_tells_nothing_apart_has_no_threshold(bundle):
    new = rescale(read_bundle(bundle), {"Effusion": (0.0, -1.0)})
    assert new.description["thresholds"]["Effusion"] is None


def test_a_bundle_is_written_whole_or_not_at_all(bundle, scored, tmp_path, monkeypatch):
    new, _ = recalibrate(read_bundle(bundle), scored)

    def full(directory):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cxrmodel.inference.calibration.write_checksums", full)
    with pytest.raises(OSError, match="No space left"):
        write_bundle(new, tmp_path / "new")
    assert not list(tmp_path.iterdir())
