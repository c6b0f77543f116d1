"""A bundle at another site: what is judged, what is left out by name, and what is refused."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrmodel.config import DataConfig, StoreConfig
from cxrmodel.data.index import build_index
from cxrmodel.data.source import scan_source
from cxrmodel.errors import DamagedArtifactError, DataError
from cxrmodel.evaluation.sites import compare_places
from cxrmodel.inference.bundle import read_bundle, write_checksums
from cxrmodel.inference.calibration import rescale, write_bundle
from cxrmodel.inference.scoring import score_shard
from cxrmodel.inference.site import evaluate_site, place_of_result, plan_site
from cxrmodel.inference.use_config import EvaluateConfig
from cxrmodel.phantom import write_phantoms
from tests.inference.test_seen import as_before

NUM_IMAGES = 150
LABELS = ("Effusion", "Infiltration", "Nodule", "Atelectasis")
ABOUT = ("image", "patient_id", "view", "sex", "age")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """Images of another site, a folder with a table of its own."""
    root = tmp_path_factory.mktemp("site")
    write_phantoms(root / "drawn", NUM_IMAGES, seed=9, size_px=64, workers=1)
    entries = pd.read_csv(root / "drawn" / "Data_Entry_2017_v2020.csv", index_col=False)
    found = entries["Finding Labels"].str.split("|")
    table = pd.DataFrame(
        {
            "image": entries["Image Index"],
            "patient_id": [f"site-{each}" for each in entries["Patient ID"]],
            "view": entries["View Position"],
            "sex": entries["Patient Gender"],
            "age": entries["Patient Age"],
            **{label: [int(label in names) for names in found] for label in LABELS},
        }
    )
    there = table["image"].map(lambda name: (root / "drawn" / "images" / name).exists())
    table[there].to_csv(root / "labels.csv", index=False)
    return root


@pytest.fixture
def site(elsewhere, tmp_path):
    """A copy of the site, to be changed."""
    root = tmp_path / "site"
    (root / "images").mkdir(parents=True)
    for path in (elsewhere / "drawn" / "images").iterdir():
        (root / "images" / path.name).symlink_to(path)
    shutil.copyfile(elsewhere / "labels.csv", root / "labels.csv")
    return root


@pytest.fixture
def evaluate(bundle, tmp_path):
    """Evaluate a bundle at a site as the flow does."""

    def run(root, place=bundle, **settings):
        store = StoreConfig(root=str(tmp_path / "store"), scratch=str(tmp_path / "scratch"))
        columns = pd.read_csv(root / "labels.csv").columns
        labels = [name for name in columns if name not in ABOUT]
        data = DataConfig(root=str(root), dataset="table", columns={"labels": labels})
        config = EvaluateConfig(data=data, store=store, device="cpu", **settings)
        index = tmp_path / "index"
        shutil.rmtree(index, ignore_errors=True)
        index.mkdir()
        source = scan_source(data, tmp_path / "scratch")
        summary = build_index(data, source, index)
        plan = plan_site(config, str(place), source.root, index, summary["fingerprint"])
        for shard in plan.scoring.shards:
            score_shard(plan.scoring, shard, device="cpu")
        run.num_shards = len(plan.scoring.shards)
        run.place = place_of_result(config, plan)
        return evaluate_site(config, plan)

    return run


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Intervals need not be good here."""
    quick = partial(compare_places, num_resamples=100)
    monkeypatch.setattr("cxrmodel.inference.site.compare_places", quick)
    monkeypatch.setattr("cxrmodel.inference.local_gain.NUM_DRAWS", 5)


def relabel(site, change) -> None:
    table = pd.read_csv(site / "labels.csv")
    change(table).to_csv(site / "labels.csv", index=False)


def test_labels_of_both_are_judged_beside_the_test_images_at_home(evaluate, site, bundle, model):
    found, table = evaluate(site)
    compared = found.comparison
    assert set(compared.site.per_class) == {"Effusion", "Infiltration", "Nodule"}
    assert found.left_out["Atelectasis"] == "no positive image among the home test images"
    assert compared.site.num_images == len(table) == NUM_IMAGES
    assert compared.home.num_images == len(model.bundle.test)
    assert found.left_out["Hernia"] == "the site has no such label"
    assert found.overlaps == {"pixels": 0, "near": 0, "patients": 0}
    excess = (table["p_Effusion"] - table["y_Effusion"].astype(float)).mean()
    assert compared.site.per_class["Effusion"]["excess"].value == pytest.approx(excess, rel=1e-6)
    test = model.bundle.test
    home = (test["p_Effusion"] - test["y_Effusion"].astype(float)).mean()
    assert compared.per_class["Effusion"]["excess"].value == pytest.approx(excess - home, rel=1e-5)
    assert compared.num_shared_patients == 0
    assert set(compared.site.shortcuts) >= {"view", "sex", "age"}
    digest = read_bundle(bundle).digest
    assert f"_evaluations/{digest[:16]}/" in evaluate.place
    again, same = evaluate(site)
    assert evaluate.num_shards == 0  # all scores are there
    assert again.origin == found.origin
    pd.testing.assert_frame_equal(table, same)


def first_of(run, part) -> Path:
    """Return an image of a part of the run."""
    split = pd.read_parquet(run.stage("split") / "split.parquet")
    return run.root / "images" / split["image"][split["split"] == part].iloc[0]


def darker(path):
    return Image.fromarray((np.asarray(Image.open(path).convert("L")) * 0.9).astype(np.uint8))


@pytest.mark.parametrize(
    "kind, part",
    [("pixels", "train"), ("pixels", "val"), ("near", "train"), ("patients", "val")],
)
def test_an_overlap_of_one_image_is_refused(evaluate, site, run, kind, part):
    row = pd.read_csv(site / "labels.csv").iloc[0]
    seen, path = first_of(run, part), site / "images" / row["image"]
    if kind == "patients":
        index = pd.read_parquet(run.stage("index") / "index.parquet").set_index("image")
        owner = index.loc[seen.name, "patient_id"]
        one = pd.read_csv(site / "labels.csv")["patient_id"] == row["patient_id"]
        relabel(site, lambda table: table.assign(patient_id=table["patient_id"].mask(one, owner)))
        count = int(one.sum())
    else:
        path.unlink()
        image = Image.open(seen).convert("L") if kind == "pixels" else darker(seen)
        image.save(path)
        count = 1
    with pytest.raises(DataError) as caught:
        evaluate(site)
    assert f"{kind}: {count} of {NUM_IMAGES} images have" in str(caught.value)
    assert f"first {row['image']}" in str(caught.value)
    found, table = evaluate(site, leave_out_overlap=True)
    assert found.comparison.site.num_images == NUM_IMAGES - count
    assert set(table.loc[~table["is_judged"], "overlap"]) == {kind}
    assert found.overlaps[kind] == count
    assert not any(found.judged_overlaps.values())
    assert found.num_left_out == count
    allowed, _ = evaluate(site, allow_overlap=(kind,))
    assert allowed.comparison.site.num_images == NUM_IMAGES
    assert allowed.judged_overlaps[kind] == count


def test_test_images_of_home_are_paired_and_not_refused(evaluate, run, tmp_path):
    table = pd.read_parquet(run.stage("report") / "test_predictions.parquet")
    root = tmp_path / "again"
    (root / "images").mkdir(parents=True)
    for name in table["image"]:
        shutil.copyfile(run.root / "images" / name, root / "images" / name)
    table.rename(columns=lambda name: name.removeprefix("y_"))[
        ["image", "patient_id", *LABELS]
    ].to_csv(root / "labels.csv", index=False)
    found, _ = evaluate(root)
    assert found.num_home_images == len(table)
    assert found.comparison.num_shared_patients == table["patient_id"].nunique()
    change = found.comparison.macro["auroc"]
    assert change.value == pytest.approx(0, abs=1e-9)
    assert change.interval == pytest.approx((0, 0), abs=1e-9)


def test_a_label_without_a_positive_image_is_left_out_by_name(evaluate, site):
    relabel(site, lambda table: table.assign(Nodule=0))
    found, _ = evaluate(site)
    assert found.left_out["Nodule"] == "no positive image at the site"
    assert "Nodule" not in found.comparison.site.per_class
    relabel(site, lambda table: table.assign(**dict.fromkeys(LABELS, 0)))
    with pytest.raises(DataError, match=r"No label can be judged .*Effusion: no positive image"):
        evaluate(site)


def test_no_label_in_common_names_both_lists(evaluate, site):
    relabel(site, lambda table: table[["image", "patient_id", "Nodule"]].set_axis(
        ["image", "patient_id", "Scoliosis"], axis="columns"))  # fmt: skip
    with pytest.raises(DataError, match=r"tells Atelectasis, .*has labels for Scoliosis\."):
        evaluate(site)
    relabel(site, lambda table: table[["image", "patient_id"]])
    with pytest.raises(DataError, match="has labels for nothing"):
        evaluate(site)


def test_a_label_of_another_name_is_the_same_finding(evaluate, site):
    relabel(site, lambda table: table.rename(columns={"Effusion": "Pleural Effusion"}))
    assert "Effusion" in evaluate(site)[0].comparison.site.per_class


def test_a_site_of_one_patient_has_no_interval(evaluate, site):
    relabel(site, lambda table: table.assign(patient_id="one"))
    found, _ = evaluate(site)
    assert found.comparison.site.macro["auroc"].interval is None
    assert found.comparison.macro["auroc"].value is not None


def test_an_unreadable_image_is_in_the_ledger(evaluate, site):
    path = next((site / "images").iterdir())
    path.unlink()
    path.write_bytes(b"no image")
    found, table = evaluate(site)
    assert found.comparison.site.num_images == NUM_IMAGES - 1
    assert found.excluded.query("stage == 'score'")["image"].tolist() == [path.name]
    assert len(table) == NUM_IMAGES


def test_a_bundle_from_before_has_no_column_for_home(evaluate, site, bundle, tmp_path):
    found, _ = evaluate(site, as_before(bundle, tmp_path / "before"))
    assert found.comparison.home is None
    assert any("no column for home" in note for note in found.notes)
    assert any("near copies" in note for note in found.notes)


def test_a_recalibrated_bundle_brings_its_own_probabilities_home(evaluate, site, bundle, tmp_path):
    read = read_bundle(bundle)
    scaled = rescale(read, {"Effusion": (1.0, 2.0)})
    new = tmp_path / "new"
    write_bundle(scaled, new)
    again = read_bundle(new)
    pd.testing.assert_frame_equal(again.test, scaled.test)
    assert (again.test["p_Effusion"] > read.test["p_Effusion"]).all()
    plain, moved = evaluate(site)[0].comparison, evaluate(site, new)[0].comparison
    assert moved.home.macro["excess"].value > plain.home.macro["excess"].value
    assert moved.home.macro["auroc"].value == pytest.approx(plain.home.macro["auroc"].value)


@pytest.mark.parametrize("damage", ["gone", "cut", "version"])
def test_a_bundle_that_cannot_be_used_is_a_sentence(evaluate, site, bundle, tmp_path, damage):
    place = tmp_path / "bundle"
    if damage != "gone":
        shutil.copytree(bundle, place)
    if damage == "cut":
        (place / "test.parquet").write_bytes(b"")
    if damage == "version":
        described = json.loads((place / "model.json").read_text())
        (place / "model.json").write_text(json.dumps(described | {"format_version": 99}))
        write_checksums(place)
    with pytest.raises((DamagedArtifactError, ValueError)) as caught:
        evaluate(site, place)
    expected = {
        "gone": "not a whole bundle",
        "cut": "test.parquet differs",
        "version": "version 99",
    }
    assert expected[damage] in str(caught.value)


def test_local_labels_are_tried_where_asked(evaluate, site):
    with pytest.raises(DataError, match="Give at most half of them"):
        evaluate(site, recalibrate=76)
    relabel(
        site, lambda table: table.assign(Effusion=table["patient_id"].str[-1].isin([*"13579"]) * 1)
    )
    found, _ = evaluate(site, recalibrate=75)
    assert found.gain.num_images == 75
    assert found.gain.gains["brier"].interval is not None
