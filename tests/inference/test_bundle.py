"""What a bundle is, wherever it lies, and what is refused."""

import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file

from cxrmodel.errors import DamagedArtifactError
from cxrmodel.inference.bundle import CHECKSUMS, FILES, read_bundle, read_train_table

pytestmark = pytest.mark.xdist_group("inference")


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


def test_reference_is_the_validation_part_without_names(run, bundle):
    reference = read_bundle(bundle).reference
    latents = pd.read_parquet(run.stage("latents") / "latents.parquet")
    val = latents[latents["split"] == "val"]
    assert len(reference) == len(val) > 0
    np.testing.assert_array_equal(reference["mu_07"], val["mu_07"])
    assert not set(reference.columns) & {"image", "patient_id"}


def test_train_images_and_patients_can_be_told_again(run, bundle):
    read = read_bundle(bundle)
    table = read_train_table(read)
    index = pd.read_parquet(run.stage("index") / "index.parquet")
    split = pd.read_parquet(run.stage("split") / "split.parquet")
    rows = index.merge(split, on="image")
    salt = read.description["salt"].encode()

    def hashed(part: str) -> set[str]:
        patients = rows.loc[rows["split"] == part, "patient_id"]
        return {hmac.new(salt, p.encode(), hashlib.sha256).hexdigest() for p in patients}

    assert set(table["patient"]) == hashed("train")
    assert not set(table["patient"]) & hashed("test")
    assert len(table) == (split["split"] == "train").sum()


def test_the_card_has_a_header_for_hugging_face(run, bundle):
    text = (bundle / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    metrics = json.loads((run.stage("report") / "metrics.json").read_text())
    (result,) = header["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == metrics["classifier"]["macro_auroc"]
    assert "Not for clinical use" in text


@pytest.mark.parametrize("name", FILES[:3])
def test_a_changed_byte_is_refused(copy, name):
    path = copy / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedArtifactError, match=f"{name} differs from its checksum"):
        read_bundle(copy)


@pytest.mark.parametrize("name", [CHECKSUMS, "model.safetensors"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(DamagedArtifactError, match=f"has no {name}"):
        read_bundle(copy)


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(DamagedArtifactError, match="no whole bundle"):
        read_bundle(tmp_path / "nowhere")


def test_half_an_archive_is_refused(bundle, tmp_path):
    path = Path(shutil.make_archive(str(tmp_path / "bundle"), "zip", bundle))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DamagedArtifactError, match=r"bundle\.zip"):
        read_bundle(path)


def rewrite(folder, **changes) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    lines = (folder / CHECKSUMS).read_text().splitlines()
    kept = [line for line in lines if not line.endswith(" model.json")]
    (folder / CHECKSUMS).write_text("\n".join([*kept, f"{digest}  model.json", ""]))


def test_another_format_version_is_refused_with_a_sentence(copy):
    rewrite(copy, format_version=2)
    with pytest.raises(ValueError, match="has format version 2, and this version of cxrmodel"):
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
