"""Using a model gives what training it gave."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

import cxrmodel
from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.inference.score_files import open_score_file

pytestmark = pytest.mark.gpu

ABSOLUTE = 1e-6
MOST = 0.95  # of the images pass the gate


def expected_scores(run) -> pd.DataFrame:
    latents = pd.read_parquet(run.stage("latents") / "latents.parquet")
    predictions = pd.read_parquet(run.stage("classifier") / "predictions.parquet")
    return latents.merge(predictions, on=["image", "split"]).set_index("image")


def by_name(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index(table["image"].str.rsplit("/", n=1).str[-1])


@pytest.mark.parametrize("batch_size", [1, 32])
def test_files_score_as_in_the_run(run, model, batch_size, device):
    expected = expected_scores(run)
    names = expected.index[expected["split"] == "test"]
    table = by_name(
        model.predict([run.root / "images" / name for name in names], batch_size=batch_size)
    )
    assert table.index.tolist() == names.tolist()
    is_ok = table["status"] == "ok"
    assert is_ok.mean() > MOST
    table, expected = table[is_ok], expected.loc[names][is_ok.to_numpy()]
    columns = [*(f"p_{label}" for label in model.labels), "mu_00", "mu_63", "l1"]
    given, wanted = table[columns].to_numpy(float), expected[columns].to_numpy(float)
    # On a GPU the kernels, in TF32, depend on the number of images.
    absolute = ABSOLUTE if device == "cpu" else 100 * ABSOLUTE
    np.testing.assert_allclose(given, wanted, rtol=0, atol=absolute)


def test_a_folder_stands_for_its_images_in_order(run, model):
    table = model.predict(run.root / "images")
    assert table["image"].tolist() == sorted(str(p) for p in (run.root / "images").iterdir())


def test_calls_are_where_probabilities_reach_the_thresholds(run, model):
    table = model.predict(run.root / "images")
    is_ok = table["status"] == "ok"
    told = [label for label in model.labels if model.thresholds[label] is not None]
    assert told
    for label in told:
        reached = table[f"p_{label}"] >= model.thresholds[label]
        assert (table[f"call_{label}"] == reached)[is_ok].all()
        assert 0 < reached.sum() < len(table)
    assert table.loc[~is_ok, f"call_{told[0]}"].isna().all()


def test_thresholds_are_those_of_the_report(run, model):
    metrics = json.loads((run.stage("report") / "metrics.json").read_text())
    per_class = metrics["classifier"]["per_class"]
    assert model.thresholds == {
        name: per_class[name]["threshold"] for name in PATHOLOGIES if name in per_class
    }


def test_a_bad_file_costs_its_row_only(run, model, tmp_path):
    good = next((run.root / "images").iterdir())
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:-30])
    text = tmp_path / "text.png"
    text.write_text("no image")
    flat = tmp_path / "flat.png"
    Image.new("L", (64, 64), 90).save(flat)
    table = model.predict([cut, good, text, tmp_path / "gone.png", flat])
    statuses = ["damaged_image", "ok", "unsupported_image", "unreadable", "low_contrast"]
    assert table["status"].tolist() == statuses
    assert table["detail"].str.len().gt(0).tolist() == [True, False, True, True, True]
    scores = table.drop(columns=["image", "status", "detail"])
    assert scores.iloc[1].drop(f"call_{PATHOLOGIES[0]}").notna().any()
    assert scores.drop(index=1).isna().all(axis=None)


def test_no_image_gives_an_empty_table_with_every_column(model):
    assert model.predict([]).columns.tolist() == model.empty_table.columns.tolist()
    assert len(model.predict([])) == 0


def test_error_map_is_the_difference_from_the_reconstruction(run, model):
    pixels = run.pixels.read(np.arange(3))
    difference = np.abs(model.reconstruct(pixels) - pixels / np.float32(255))
    np.testing.assert_allclose(model.error_map(pixels), difference, atol=1e-6)
    np.testing.assert_allclose(
        model.error_map(pixels).mean(axis=(1, 2)), model.score(pixels)["l1"], atol=1e-6
    )


def test_unusual_is_above_99_percent_of_validation(run, model):
    reference = model.bundle.reference
    limits = model.bundle.description["limits"]
    assert limits["l1"] == pytest.approx(np.quantile(reference["l1"], 0.99))
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64), dtype=np.uint8)
    table = model.score(noise)
    assert table["unusual"].all()
    usual = model.score(run.pixels.read(np.arange(40)))
    assert usual["unusual"].mean() < 0.2


def test_pixels_of_another_shape_are_refused(model):
    with pytest.raises(ValueError, match=r"uint8 of shape \(B, 64, 64\)"):
        model.score(np.zeros((1, 32, 32), np.uint8))


def test_the_package_loads_a_model(bundle, model):
    assert cxrmodel.load(bundle, device="cpu").labels == model.labels
    assert set(model.labels) <= set(PATHOLOGIES)  # those that train has


def test_small_images_go_through_the_network_in_larger_batches(model, device, monkeypatch):
    names, times = ["gone.png"] * 300, 1 if device == "cpu" else 4
    for size_px, num_together in ((64, 64), (512, 32), (2048, 8)):
        monkeypatch.setattr(model, "preprocessing", replace(model.preprocessing, size=size_px))
        assert len(next(model.stream(names))) == times * num_together


def test_a_batch_of_none_is_refused(model):
    with pytest.raises(ValueError, match="batch_size is 0"):
        model.predict(["a.png"], batch_size=0)


def test_many_small_batches_make_a_small_file(model, tmp_path):
    table = model.predict([f"gone{number}.png" for number in range(200)])
    out = tmp_path / "scores.parquet"
    with open_score_file(out, model.empty_table, {}) as file:
        for row in range(200):
            file.write(table.iloc[row : row + 1])
    pd.testing.assert_frame_equal(pd.read_parquet(out), table)
    assert pq.ParquetFile(out).num_row_groups == 1


def test_images_that_are_refused_do_not_go_through_the_network(model, monkeypatch):
    empty = model.empty_table
    monkeypatch.setattr(model, "score", None)
    assert len(model.predict(["gone.png"] * 20)) == 20
    assert len(empty) == 0
