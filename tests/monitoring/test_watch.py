"""From scored images to a page, a table and a verdict."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from cxrmodel.errors import DamagedArtifactError
from cxrmodel.inference.use_config import MonitorConfig
from cxrmodel.monitoring.watch import keep, watch
from tests.monitoring.scored import images, write_bundle, write_root, write_scores

NUM = 160


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A bundle, images with a table, and scores of which the first latent has drifted."""
    folder = tmp_path_factory.mktemp("site")
    bundle, root = write_bundle(folder / "bundle"), folder / "root"
    table = write_root(root, NUM)
    rows = images(NUM, seed=8, shift=1.5)
    rows.loc[rows.index[:3], "status"] = "damaged_image"
    write_scores(folder / "scores", bundle, rows, list(table["image"]), root)
    return folder


@pytest.fixture
def config(site, tmp_path):
    store = {"root": str(tmp_path / "store"), "scratch": str(tmp_path / "scratch")}
    return MonitorConfig(
        bundle=str(site / "bundle"),
        data={"root": str(site / "root"), "dataset": "table"},
        scores=str(site / "scores"),
        store=store,
    )


def contents(location: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(location).iterdir()}


def test_a_window_that_drifted_is_told_in_a_page_a_table_and_a_manifest(config):
    watched = watch(config)
    assert watched.is_new
    assert watched.found["is_drift"]
    assert {entry["quantity"] for entry in watched.found["drifted"]} >= {"mu_00"}
    assert "manifest.json" not in contents(watched.location)  # until everybody was told
    keep(watched)
    written = contents(watched.location)
    assert json.loads(written["manifest.json"]) == watched.found
    table = pd.read_parquet(f"{watched.location}/drift.parquet")
    assert table["quantity"].iloc[0] in ("mu_00", "all latents together")
    assert table[["effect", "p", "p_family"]].notna().all(axis=None)
    moved = pd.read_parquet(f"{watched.location}/images.parquet")
    page = written["drift.html"].decode()
    assert "Drift in 160 scored images" in page
    assert moved["image"].iloc[0].rsplit("/")[-1] in page
    assert page.count('class="image"') == len(moved)
    assert "damaged_image" in page
    assert "not compared" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_same_window_again_gives_the_same_bytes_and_is_not_new(config):
    first = watch(config)
    keep(first)
    before = contents(first.location)
    again = watch(config)
    assert not again.is_new
    assert again.found == first.found
    shutil.rmtree(first.location)
    once_more = watch(config)
    assert once_more.is_new
    keep(once_more)
    assert contents(once_more.location) == before


def test_a_window_that_was_not_finished_is_done_again(config):
    first = watch(config)
    assert watch(config).is_new
    assert contents(first.location).keys() == {"drift.html", "drift.parquet", "images.parquet"}


def test_images_that_cannot_be_read_from_here_cost_their_picture(config, site, tmp_path):
    scores = tmp_path / "elsewhere"
    rows = images(NUM, seed=8)
    write_scores(scores, site / "bundle", rows, [f"{row}.png" for row in range(NUM)], "/gone")
    watched = watch(MonitorConfig(bundle=config.bundle, scores=str(scores), store=config.store))
    page = contents(watched.location)["drift.html"].decode()
    assert "None of them can be read from here" in page
    assert "Nothing tells whose the images are" in page


def test_too_few_images_are_no_failure_and_the_sentence_says_how_many(config, site, tmp_path):
    watched = watch(config.model_copy(update={"newest": 20}))
    assert "patients, and a test needs 50 patients" in watched.too_few
    small = write_bundle(tmp_path / "small", 40)
    write_scores(site / "scores", small, images(1, 0), ["a.png"], "/images")
    watched = watch(MonitorConfig(bundle=str(small), scores=config.scores, store=config.store))
    assert watched.too_few.startswith("The bundle's reference has 40 images of 20 patients")


def test_a_manifest_that_cannot_be_read_is_named(config):
    watched = watch(config)
    keep(watched)
    manifest = Path(watched.location) / "manifest.json"
    manifest.write_text("{}")
    with pytest.raises(DamagedArtifactError, match=r"manifest.json cannot be read.*Delete it"):
        watch(config)


def test_a_damaged_bundle_is_named(config, site, tmp_path):
    copy = shutil.copytree(site / "bundle", tmp_path / "copy")
    (copy / "reference.parquet").write_bytes(b"half")
    with pytest.raises(DamagedArtifactError, match=r"reference\.parquet"):
        watch(config.model_copy(update={"bundle": str(copy)}))
    with pytest.raises(DamagedArtifactError, match="missing"):
        watch(config.model_copy(update={"bundle": str(tmp_path / "missing")}))


def test_a_window_of_images_that_cannot_be_read_is_not_tested(config, site, tmp_path):
    rows = images(NUM, seed=8).assign(status="damaged_image")
    names = [f"{row}.png" for row in range(NUM)]
    write_scores(tmp_path / "scores", site / "bundle", rows, names, "/images")
    scores = str(tmp_path / "scores")
    watched = watch(MonitorConfig(bundle=config.bundle, scores=scores, store=config.store))
    assert watched.too_few.startswith("Nothing can be tested of the window of 160 images (damaged_")


def test_scores_of_a_newer_version_that_know_more_are_another_window(config, site, tmp_path):
    names = [f"{row}.png" for row in range(NUM)]
    found = []
    for rows in (images(NUM, seed=8).drop(columns="sharpness"), images(NUM, seed=8)):
        scores = tmp_path / f"scores{len(found)}"
        write_scores(scores, site / "bundle", rows, names, "/images")
        given = MonitorConfig(bundle=config.bundle, scores=str(scores), store=config.store)
        found.append(watch(given))
    assert found[0].found["untested"]["sharpness"] == "unknown in the window"
    assert "sharpness" not in found[1].found["untested"]
    assert found[0].location != found[1].location


def test_a_store_that_cannot_be_written_to_is_named(config, tmp_path):
    (tmp_path / "file").write_text("")
    store = config.store.model_copy(update={"root": str(tmp_path / "file")})
    with pytest.raises(ValueError, match="store"):
        watch(config.model_copy(update={"store": store}))
