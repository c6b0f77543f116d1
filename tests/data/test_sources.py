"""Several data sets in one run."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrmodel.config import DataConfig, ImagesConfig
from cxrmodel.data.files.root import Root, shown_root
from cxrmodel.data.images.decode import decode_image
from cxrmodel.data.images.reader import ImageReader
from cxrmodel.data.index import build_index
from cxrmodel.data.source import scan_source
from cxrmodel.errors import DataError

OWN = pd.DataFrame(
    {"file": ["a.png", "b.png"], "patient": ["1", "2"], "Pleural effusion": [1, 0], "Tube": [0, 1]}
)


@pytest.fixture
def own(tmp_path, png):
    root = tmp_path / "own"
    root.mkdir()
    for number, name in enumerate(OWN["file"]):
        (root / name).write_bytes(png(number + 50))
    OWN.to_csv(root / "meta.csv", index=False)
    return {"root": str(root), "dataset": "table"}


@pytest.fixture
def nih(make_root):
    return {"root": str(make_root(4))}


@pytest.fixture
def mix(tmp_path):
    """Return a function from data sets to the summary, the source and the index's folder."""

    def run(*sources, **settings):
        config = DataConfig(sources=sources, **settings)
        source = scan_source(config, tmp_path / "scratch")
        folder = tmp_path / "mixed"
        folder.mkdir(exist_ok=True)
        return build_index(config, source, folder), source, folder

    return run


def test_two_data_sets_become_one_index(nih, own, mix):
    summary, _, folder = mix(nih, own)
    index = pd.read_parquet(folder / "index.parquet")
    assert summary["dataset"] == "nih+table"
    assert index["source"].tolist() == ["nih"] * 4 + ["table"] * 2
    assert index["image"].tolist()[-2:] == ["table/a.png", "table/b.png"]
    assert index["image"].tolist()[0] == "nih/00000001_000.png"
    assert set(index["patient_id"]) == {"nih:1", "nih:2", "table:1", "table:2"}
    assert index["Effusion"].tolist() == [0, 0, 0, 0, 1, 0]
    assert index["Tube"].fillna(-1).tolist() == [-1] * 4 + [0, 1]
    assert index["Mass"].fillna(-1).tolist() == [1, 0, 0, 1, -1, -1]
    assert "Pleural effusion" not in index
    assert list(index.columns)[-16:] == ["any_abnormal", *summary["labels"]]
    assert {str(index[name].dtype) for name in summary["labels"]} == {"Int8"}
    assert json.loads((folder / "notes.json").read_text())[0].startswith("table: meta.csv is read")


def test_images_are_read_from_their_own_root(nih, own, mix):
    _, source, folder = mix(nih, own)
    reader = ImageReader(ImagesConfig(size=64), source.root, folder)
    decoded = [reader.decode(row) for row in range(6)]
    assert [each.status for each in decoded] == ["ok"] * 6
    alone = decode_image(Path(own["root"], "a.png").read_bytes(), ImagesConfig(size=64))
    np.testing.assert_array_equal(decoded[4].pixels, alone.pixels)


def test_two_of_one_kind_are_told_apart(own, mix):
    _, source, folder = mix(own, own)
    assert [part.name for part in source.parts] == ["table", "table 2"]
    index = pd.read_parquet(folder / "index.parquet")
    assert index["image"].is_unique
    assert index["patient_id"].nunique() == 4


def test_they_can_be_named(nih, own, mix):
    _, source, folder = mix({**own, "name": "ward 3"}, nih, own, {**own, "name": "table 2"}, own)
    names = [part.name for part in source.parts]
    assert names == ["ward 3", "nih", "table", "table 2", "table 3"]
    index = pd.read_parquet(folder / "index.parquet")
    assert list(index["source"].unique()) == names
    assert (index["image"][0], index["patient_id"][0]) == ("ward 3/a.png", "ward 3:1")


def test_a_name_makes_another_mix_and_leaves_a_run_alone_as_it_is(nih, own, mix):
    first = mix(nih, own)[1].fingerprint
    assert mix(nih, {**own, "name": "ward"})[1].fingerprint != first
    assert "name" not in DataConfig.model_fields  # so it is in no cache key of a single data set


def test_the_ledger_names_the_data_set(nih, own, mix):
    OWN.assign(file=["a.png", "gone.png"]).to_csv(f"{own['root']}/meta.csv", index=False)
    _, _, folder = mix(nih, own)
    excluded = pd.read_parquet(folder / "excluded.parquet")
    assert sorted(excluded["image"]) == ["table/b.png", "table/gone.png"]


def test_the_fingerprint_covers_each_of_them(nih, own, mix):
    first = mix(nih, own)[1].fingerprint
    assert mix(nih, own)[1].fingerprint == first
    OWN.assign(Tube=1).to_csv(f"{own['root']}/meta.csv", index=False)
    assert mix(nih, own)[1].fingerprint != first


def test_images_that_are_in_two_data_sets_are_said(nih, lay_rsna, mix, caplog):
    summary, _, _ = mix(nih, lay_rsna)
    assert "were taken from NIH ChestX-ray14" in summary["notes"][-1]
    assert "the same image may be in train and in test" in caplog.text
    assert "Pneumonia" in summary["labels"]


@pytest.fixture
def lay_rsna(tmp_path, png):
    root = tmp_path / "rsna"
    root.mkdir()
    (root / "x.png").write_bytes(png(99))
    (root / "stage_2_train_labels.csv").write_text("patientId,x,y,width,height,Target\nx,,,,,1\n")
    return {"root": str(root), "patient_from": "image"}


def test_patient_ids_that_two_data_sets_share_are_said(nih, own, mix):
    assert mix(nih, own)[0]["notes"][-1].startswith("2 patient ids occur in more than one")
    OWN.assign(patient=["x", "y"]).to_csv(f"{own['root']}/meta.csv", index=False)
    assert not any("patient ids occur" in note for note in mix(nih, own)[0]["notes"])


def test_a_root_of_several_says_where_they_are(nih, own, mix):
    _, source, _ = mix(nih, own)
    assert shown_root(source.root) == f"{nih['root']} and {own['root']}"
    assert len([x for x in Root(source.root).files() if x.uri.endswith(".png")]) == 6
    with pytest.raises(FileNotFoundError):
        Root(source.root).read("elsewhere/a.png")


def test_one_that_cannot_be_read_is_named(nih, tmp_path, mix):
    with pytest.raises(DataError, match=r"Cannot list .*/nowhere: it does not exist"):
        mix(nih, {"root": str(tmp_path / "nowhere")})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"root": "/data"}, r"data\.sources lists the data sets, and data\.root is set too"),
        ({"dataset": "nih"}, r"data\.dataset is set too"),
        ({"sources": [{"root": "phantom"}]}, "synthetic images are not mixed"),
        ({"sources": [{"root": "/a", "name": "x"}] * 2}, "calls two data sets 'x'"),
        ({"sources": [{"root": "/a", "name": "a/b"}]}, "'a/b' cannot name a data set"),
        ({"sources": [{"root": "/a", "name": "a:b"}]}, "'a:b' cannot name a data set"),
        ({"sources": [{"root": "/a", "name": "a\n"}]}, "cannot name a data set"),
        ({"sources": [{"root": "/a", "name": "x" * 41}]}, "It has 41 characters, and may have 40"),
    ],
)
def test_data_is_named_in_one_way(settings, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**{"sources": [{"root": "/a"}], **settings})
