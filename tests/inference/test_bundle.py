"""What a bundle is, wherever it lies, and what is refused."""

import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from cxrmodel.data.images import grey
from cxrmodel.errors import DamagedArtifactError
from cxrmodel.inference.bundle import (
    CHECKSUMS,
    FILES,
    TEST,
    TRAIN,
    read_bundle,
    read_train_table,
    write_checksums,
)
from cxrmodel.inference.predictor import load
from tests.servers.web import WebServer


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "copy")


def test_the_same_run_gives_the_same_bytes(run, bundle, tmp_path):
    again = run.write_bundle(tmp_path / "again")
    for name in (*FILES, CHECKSUMS):
        assert (again / name).read_bytes() == (bundle / name).read_bytes(), name


def test_checksums_are_as_sha256sum_checks_them(bundle):
    subprocess.run(["sha256sum", "--check", "--strict", CHECKSUMS], cwd=bundle, check=True)


@pytest.mark.parametrize("in_folder", [True, False])
def test_a_zip_archive_is_as_good_as_the_folder(bundle, tmp_path, in_folder):
    base = bundle.name if in_folder else "."
    root = bundle.parent if in_folder else bundle
    path = shutil.make_archive(str(tmp_path / "bundle"), "zip", root, base)
    assert read_bundle(path).digest == read_bundle(bundle).digest


def test_a_url_is_as_good_as_the_folder(bundle):
    assert read_bundle(f"file://{bundle}").digest == read_bundle(bundle).digest


@pytest.fixture(scope="module")
def web(bundle, tmp_path_factory):
    """URL of a web server that gives whole files only, with a bundle and its archive."""
    root = tmp_path_factory.mktemp("web")
    shutil.copytree(bundle, root / "bundle")
    shutil.make_archive(str(root / "bundle"), "zip", bundle)
    server = WebServer(root)
    server.ranges = False
    yield server.url
    server.stop()


@pytest.mark.parametrize(
    "place",
    [
        "{web}/bundle",
        "{web}/bundle.zip",
        "{web}/bundle.zip?token=1",
        "zip::{web}/bundle.zip",
        "simplecache::{web}/bundle.zip",
        "zip::simplecache::{web}/bundle.zip",
    ],
)
def test_a_web_server_may_have_it(bundle, web, place):
    assert read_bundle(place.format(web=web)).digest == read_bundle(bundle).digest


@pytest.mark.parametrize(
    "place", ["zip::{path}", "zip://a/b::{path}", "simplecache::file://{path}"]
)
def test_a_chain_of_protocols_may_lead_to_it(bundle, tmp_path, place):
    shutil.copytree(bundle, tmp_path / "root" / "a" / "b")
    path = shutil.make_archive(str(tmp_path / "bundle"), "zip", tmp_path / "root")
    assert read_bundle(place.format(path=path)).digest == read_bundle(bundle).digest


def test_a_missing_archive_on_a_web_server_is_a_sentence(web):
    with pytest.raises(DamagedArtifactError, match=r"There is nothing at .*gone\.zip"):
        read_bundle(f"{web}/gone.zip")


def test_reference_is_the_validation_part_without_names(run, bundle):
    reference = read_bundle(bundle).reference
    latents = pd.read_parquet(run.stage("latents") / "latents.parquet")
    val = latents[latents["split"] == "val"]
    assert len(reference) == len(val) > 0
    np.testing.assert_array_equal(reference["mu_07"], val["mu_07"])
    assert not set(reference.columns) & {"image", "patient_id"}


def test_test_images_are_there_without_names(run, bundle):
    test = read_bundle(bundle).test
    expected = pd.read_parquet(run.stage("report") / "test_predictions.parquet")
    for label in read_bundle(bundle).labels:
        np.testing.assert_array_equal(test[f"y_{label}"], expected[f"y_{label}"])
        np.testing.assert_array_equal(test[f"p_{label}"], expected[f"p_{label}"])
    assert test["patient"].nunique() == expected["patient_id"].nunique()
    assert not set(test["patient"]) & set(read_train_table(read_bundle(bundle))["patient"])
    assert not set(test.columns) & {"image", "patient_id"}


@pytest.mark.parametrize("name, message", [("patient", "needs one column patient"), ("p_Mass", "")])
def test_a_test_table_that_lacks_a_column_is_refused(copy, name, message):
    pd.read_parquet(copy / TEST).drop(columns=name).to_parquet(copy / TEST)
    write_checksums(copy)
    with pytest.raises(DamagedArtifactError, match=rf"test\.parquet cannot be used.*{message}"):
        read_bundle(copy)


def test_fingerprints_of_another_length_are_refused(copy):
    seen = pd.read_parquet(copy / "train.parquet")
    seen.assign(hash=[b"short"] * len(seen)).to_parquet(copy / "train.parquet")
    write_checksums(copy)
    with pytest.raises(DamagedArtifactError, match="64 bytes long"):
        read_train_table(read_bundle(copy))


def test_images_and_patients_that_were_seen_can_be_told_again(run, bundle):
    read = read_bundle(bundle)
    table = read_train_table(read)
    index = pd.read_parquet(run.stage("index") / "index.parquet")
    split = pd.read_parquet(run.stage("split") / "split.parquet")
    rows = index.merge(split, on="image")
    salt = read.description["salt"].encode()

    def hashed(part: str) -> set[str]:
        patients = rows.loc[rows["split"] == part, "patient_id"]
        return {hmac.new(salt, p.encode(), hashlib.sha256).hexdigest() for p in patients}

    for part in ("train", "val"):
        seen = table[table["split"] == part]
        assert set(seen["patient"]) == hashed(part)
        assert len(seen) == (split["split"] == part).sum()
    assert not set(table["patient"]) & hashed("test")


def test_the_card_has_a_header_for_hugging_face(run, bundle):
    text = (bundle / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    metrics = json.loads((run.stage("report") / "metrics.json").read_text())
    (result,) = header["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == metrics["classifier"]["macro_auroc"]
    assert result["dataset"]["name"] == "synthetic images in the layout of NIH ChestX-ray14"
    assert "Trained on synthetic images in the layout of NIH" in text
    assert "Not for clinical use" in text
    assert "## Limits" in text
    assert "## Compute" in (run.stage("report") / "MODEL_CARD.md").read_text()
    assert "## Compute" not in text


def change_a_byte(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", sorted({*FILES} - {TRAIN}))
def test_a_changed_byte_is_refused(copy, name):
    change_a_byte(copy / name)
    with pytest.raises(DamagedArtifactError, match=f"{name} differs from its checksum"):
        read_bundle(copy)


def test_a_changed_byte_of_the_train_images_is_refused_where_they_are_read(copy):
    change_a_byte(copy / TRAIN)
    read = read_bundle(copy)
    with pytest.raises(DamagedArtifactError, match=f"{TRAIN} differs from its checksum"):
        read_train_table(read)


@pytest.mark.parametrize("name", [CHECKSUMS, "model.safetensors", "README.md"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(DamagedArtifactError, match=f"has no {name}"):
        read_bundle(copy)


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(DamagedArtifactError, match="not a whole bundle"):
        read_bundle(tmp_path / "nowhere")


def test_half_an_archive_is_refused(bundle, tmp_path):
    path = Path(shutil.make_archive(str(tmp_path / "bundle"), "zip", bundle))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DamagedArtifactError, match=r"bundle\.zip"):
        read_bundle(path)


def rewrite(folder, **changes) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    write_checksums(folder)


def test_another_format_version_is_refused_with_a_sentence(copy):
    rewrite(copy, format_version=2)
    with pytest.raises(ValueError, match=r"has format version 2.*that wrote it: cxrmodel "):
        read_bundle(copy)


def test_other_grey_levels_are_refused_with_a_sentence(copy, monkeypatch):
    assert json.loads((copy / "model.json").read_text())["grey_levels"] == grey.METHOD
    rewrite(copy, grey_levels="grey-0")
    with pytest.raises(ValueError, match=r"grey levels 'grey-0', .* wrote it: cxrmodel "):
        read_bundle(copy)


def test_a_bundle_that_does_not_say_its_grey_levels_has_the_first(copy, monkeypatch):
    description = json.loads((copy / "model.json").read_text())
    del description["grey_levels"]
    (copy / "model.json").write_text(json.dumps(description))
    write_checksums(copy)
    read_bundle(copy)
    monkeypatch.setattr(grey, "METHOD", "grey-2")
    with pytest.raises(ValueError, match=r"grey levels 'grey-1', .* makes 'grey-2'"):
        read_bundle(copy)


def test_weights_are_those_of_the_run(run, bundle):
    tensors = read_bundle(bundle).tensors
    for name, tensor in load_file(run.stage("vae") / "vae.safetensors").items():
        assert tensors[f"vae.{name}"].equal(tensor)


ELSEWHERE = """
import sys
for name in ("prefect", "matplotlib", "sklearn", "scipy", "pydantic", "boto3", "jinja2", "yaml"):
    sys.modules[name] = None  # importing it fails
import cxrmodel
table = cxrmodel.load(sys.argv[1], device="cpu").predict(sys.argv[2])
print(len(table), table["status"].iloc[0])
"""


def test_using_a_model_needs_no_more_than_a_few_packages(run, bundle, tmp_path):
    image = next((run.root / "images").iterdir())
    command = [sys.executable, "-c", ELSEWHERE, str(bundle), str(image)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.stdout.split(), ran.returncode) == (["1", "ok"], 0), ran.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "labels is None"),
        ({"labels": "abc"}, "labels is 'abc'"),
        ({"labels": [["a"]]}, "list of different names"),
        ({"labels": ["a", "a"]}, "list of different names"),
        ({"labels": ["a\x1b[31m"]}, "list of different names"),
        ({"labels": ["a"]}, "has to be the number of labels"),
        ({"images": {"size": 64, "fit": "crop"}}, "images is"),
        ({"images": {"size": 10**9, "fit": "crop", "max_megapixels": 1}}, "images.size is"),
        ({"images": {"size": "64", "fit": "crop", "max_megapixels": 1}}, "images.size is '64'"),
        ({"images": {"size": 64, "fit": "zoom", "max_megapixels": 1}}, "images.fit is 'zoom'"),
        ({"images": {"size": 64, "fit": "pad", "max_megapixels": "x"}}, "max_megapixels is"),
        ({"images": {"size": 128, "fit": "pad", "max_megapixels": 1}}, "same as images.size"),
        ({"architecture": None}, "architecture.vae is None"),
        ({"precision": "float8"}, "precision is 'float8'"),
        ({"thresholds": {}}, "probability or null per label"),
        ({"thresholds": [1]}, "probability or null per label"),
        ({"calibration": None}, "slope and intercept per label"),
        ({"limits": None}, "limits is None"),
        ({"limits": {"l1": float("nan"), "distance": 1}}, "is not JSON: it has the number NaN"),
        ({"limits": {"l1": "a", "distance": 1}}, "limits.l1 is 'a'"),
        ({"data": {"title": 1}}, "data.title is 1"),
        ({"split": None}, "split.method is None"),
        ({"salt": 7}, "salt is 7"),
        ({"parent": "abc"}, "parent is 'abc'"),
        ({"parent": {"digest": "abc", "recalibrated": [7]}}, "the recalibrated labels"),
    ],
)
def test_a_field_that_cannot_be_is_named_whatever_the_checksum(copy, changes, message):
    rewrite(copy, **changes)
    with pytest.raises(DamagedArtifactError, match=re.escape(message)):
        read_bundle(copy)


def test_json_without_end_is_refused(copy):
    (copy / "model.json").write_text("[" * 200_000)
    write_checksums(copy)
    with pytest.raises(DamagedArtifactError, match="is not JSON"):
        read_bundle(copy)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("reference.mean", None, "has no reference.mean"),
        ("reference.mean", torch.zeros(3), "has a (3,) reference.mean"),
        ("reference.precision", torch.zeros(3), "reference.precision"),
        ("reference.mean", torch.zeros(64, dtype=torch.bfloat16), "is of type torch.bfloat16"),
        ("gate.limit", None, "input gate"),
        ("gate.limit", torch.zeros(2), "input gate"),
        ("gate.other", torch.zeros(2), "input gate"),
        ("classifier.layers.4.bias", None, "are not those of the network"),
        ("classifier.layers.4.bias", torch.full((1,), float("nan")), "not finite"),
        ("classifier.layers.4.bias", torch.zeros(1, dtype=torch.int32), "torch.int32"),
        ("classifier.layers.0.bias", torch.zeros(256, dtype=torch.float64), "is not float32"),
    ],
)
def test_a_tensor_that_cannot_be_is_named(copy, name, tensor, message):
    tensors = load_file(copy / "model.safetensors")
    tensors.pop(name, None)
    save_file(tensors | ({} if tensor is None else {name: tensor}), copy / "model.safetensors")
    write_checksums(copy)
    with pytest.raises(DamagedArtifactError, match=re.escape(message)):
        load(copy, device="cpu")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("patient", -5, "outside 0 to"),
        ("patient", 2**31 - 1, "outside 0 to"),  # would be an array of as many patients
        ("patient", 0.5, "is of type float64"),
        ("y_Mass", 2, "outside 0 to 1"),
        ("y_Mass", None, "is of type"),
        ("p_Mass", "x", "is of type"),
        ("p_Mass", float("nan"), "outside 0 to 1"),
        ("mu_00", float("nan"), "outside"),
    ],
)
def test_a_value_of_the_reference_that_cannot_be_is_named(copy, column, value, message):
    path = copy / "reference.parquet"
    pd.read_parquet(path).assign(**{column: value}).to_parquet(path)
    write_checksums(copy)
    with pytest.raises(DamagedArtifactError, match=f"column {column} .*{message}"):
        read_bundle(copy)


def test_a_missing_column_of_the_reference_is_named(copy):
    path = copy / "reference.parquet"
    pd.read_parquet(path).drop(columns="y_Mass").to_parquet(path)
    write_checksums(copy)
    with pytest.raises(DamagedArtifactError, match="needs one column y_Mass"):
        read_bundle(copy)


@pytest.mark.parametrize("name", ["model.json", CHECKSUMS])
def test_a_file_that_unpacks_without_end_is_refused(copy, tmp_path, name):
    with (copy / name).open("ab") as stream:
        stream.write(b" " * (17 << 20))
    path = shutil.make_archive(str(tmp_path / "bundle"), "zip", copy)
    with pytest.raises(DamagedArtifactError, match=f"{name} has more than"):
        read_bundle(path)


def test_an_archive_may_hold_other_folders_too(bundle, tmp_path):
    (tmp_path / "root" / "__MACOSX").mkdir(parents=True)
    (tmp_path / "root" / "__MACOSX" / "._model.json").touch()
    shutil.copytree(bundle, tmp_path / "root" / "a" / "b")
    path = shutil.make_archive(str(tmp_path / "bundle"), "zip", tmp_path / "root")
    assert read_bundle(path).digest == read_bundle(bundle).digest


def test_a_folder_may_be_called_zip(bundle, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "bundle.zip")
    assert read_bundle(folder).digest == read_bundle(bundle).digest


@pytest.mark.parametrize("location", ["reference://x", "dir://x", "gopher://x", "a\0b", "x" * 5000])
def test_a_place_that_cannot_be_opened_is_a_sentence(location):
    with pytest.raises(DamagedArtifactError, match="cannot be opened"):
        read_bundle(location)


def test_every_file_may_be_read_by_whoever_may_read_one(bundle):
    assert len({path.stat().st_mode for path in bundle.iterdir()}) == 1
