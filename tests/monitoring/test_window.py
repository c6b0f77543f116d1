"""Which scored images are looked at, and what is known of the people in them."""

from datetime import timedelta

import pandas as pd
import pytest
from pydantic import ValidationError

from cxrmodel.errors import DamagedArtifactError, DataError, StoreError
from cxrmodel.inference.bundle import read_bundle
from cxrmodel.inference.use_config import MonitorConfig
from cxrmodel.monitoring.window import read_window
from tests.monitoring.scored import NOON, images, write_bundle, write_root, write_scores


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundles") / "bundle", train=("patient0", "1"))


@pytest.fixture(scope="module")
def bundle(place):
    return read_bundle(place)


@pytest.fixture
def config(tmp_path):
    def make(**settings):
        store = {"root": str(tmp_path / "store"), "scratch": str(tmp_path / "scratch")}
        return MonitorConfig(**{"scores": str(tmp_path / "scores"), "store": store, **settings})

    return make


@pytest.fixture
def score(place, tmp_path):
    def write(names, root="/images", **settings):
        rows = settings.pop("rows", images(len(names), seed=3))
        return write_scores(tmp_path / "scores", place, rows, list(names), root, **settings)

    return write


def test_the_newest_images_are_taken_whole_where_they_fit(score, config, bundle):
    score([f"old{row}.png" for row in range(30)])
    score([f"new{row}.png" for row in range(30)], scored_at=NOON + timedelta(hours=1))
    rows = read_window(config(newest=40), bundle).rows
    assert len(rows) == 40
    assert rows["image"].str.contains("new").sum() == 30
    assert rows["image"].is_monotonic_increasing
    assert read_window(config(newest=40), bundle).rows.equals(rows)
    assert len(read_window(config(), bundle).rows) == 60


def test_images_of_one_moment_are_drawn_whatever_their_names(score, config, bundle):
    score([f"a/{row:03d}.png" for row in range(100)] + [f"b/{row:03d}.png" for row in range(100)])
    taken = read_window(config(newest=100), bundle).rows
    assert 30 < taken["image"].str.contains("/b/").sum() < 70
    assert sorted(taken["source"].unique()) == ["a", "b"]


def test_only_what_was_scored_since_a_date(score, config, bundle):
    score(["old.png"])
    score(["new.png"], scored_at=NOON + timedelta(days=1))
    rows = read_window(config(since="2026-01-02"), bundle).rows
    assert list(rows["image"]) == ["/images/new.png"]
    with pytest.raises(DataError, match=r"No image was scored since 2026-03-01T.*the last ones"):
        read_window(config(since="2026-03-01"), bundle)
    with pytest.raises(ValidationError, match=r"'soon' is no date\. Give it as 2026-01-31"):
        config(since="soon")


def test_of_an_image_that_was_scored_again_the_newest_row_counts(score, config, bundle):
    score(["a.png", "b.png"], version="1")
    score(["a.png"], version="2", scored_at=NOON + timedelta(hours=1))
    rows = read_window(config(), bundle).rows
    assert rows.set_index("image")["version"].to_dict() == {
        "/images/a.png": "2", "/images/b.png": "1",
    }  # fmt: skip


def test_several_roots_are_sources(score, config, bundle):
    score(["x/a.png", "y/b.png"], root="/north")
    score(["a.png"], root="/south")
    rows = read_window(config(), bundle).rows
    assert sorted(rows["source"]) == ["/north", "/north", "/south"]


def test_folders_of_one_patient_each_are_no_sources(score, config, bundle):
    score([f"patient{row}/a.png" for row in range(30)])
    assert set(read_window(config(), bundle).rows["source"]) == {""}


def test_a_table_tells_whose_the_images_are(score, config, bundle, tmp_path):
    root = tmp_path / "root"
    table = write_root(root, 12)
    score([*table["image"], "c.png"], root=root)
    window = read_window(config(data={"root": str(root), "dataset": "table"}), bundle)
    rows = window.rows.set_index("image")
    assert window.num_seen == 2  # both of patient0
    assert len(rows) == 11
    assert window.num_patients == 5 + 1
    known = rows.loc[f"{root}/a/0005.png"]
    assert known[["view", "sex", "age"]].tolist() == table.loc[5, ["view", "sex", "age"]].tolist()
    assert pd.isna(rows.loc[f"{root}/c.png", "age"])
    assert window.notes == (
        "No table or tag tells whose 1 of the 11 images are: each of them counts as another "
        "patient's.",
    )


def test_without_a_table_each_image_is_a_patient_and_the_page_says_so(score, config, bundle):
    score(["a.png", "b.png"])
    window = read_window(config(), bundle)
    assert window.num_patients == 2
    assert "Nothing tells whose the images are" in window.notes[0]


def test_another_root_than_the_scored_one_is_refused(score, config, bundle, tmp_path):
    write_root(tmp_path / "root", 4)
    score(["a.png"])
    with pytest.raises(DataError, match=r"None of the scored images, such as /images/a\.png"):
        read_window(config(data={"root": str(tmp_path / "root"), "dataset": "table"}), bundle)


def test_a_damaged_part_is_named(score, config, bundle, tmp_path):
    key = score(["a.png", "b.png"])
    path = tmp_path / "scores" / bundle.digest[:16] / f"{key}.parquet"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedArtifactError, match=rf"{key}\.parquet is damaged.*Delete it"):
        read_window(config(), bundle)


def test_an_output_without_scores_names_what_it_holds(score, config, bundle, tmp_path):
    with pytest.raises(DataError, match=r"has no scores of the bundle .*Run flows/score.py"):
        read_window(config(), bundle)
    other = write_bundle(tmp_path / "other", 100)
    write_scores(tmp_path / "scores", other, images(1, 0), ["a.png"], "/images")
    digest = read_bundle(other).digest[:16]
    with pytest.raises(DataError, match=f"It holds those of the bundles {digest}"):
        read_window(config(), bundle)
    moved = tmp_path / "scores" / bundle.digest[:16]
    (tmp_path / "scores" / digest).rename(moved)
    with pytest.raises(StoreError, match="somebody moved them there"):
        read_window(config(), bundle)
