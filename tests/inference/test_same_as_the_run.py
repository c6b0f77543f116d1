"""Files score as in a run, whatever their kind and fit, the batch, and what computes beside."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrmodel.config import DataConfig, ImagesConfig, LatentsConfig, SplitConfig
from cxrmodel.data.images.pixels import Pixels, decode_images, open_pixels
from cxrmodel.data.index import build_index
from cxrmodel.data.source import scan_source
from cxrmodel.data.splits import split_images
from cxrmodel.inference.bundle import write_checksums
from cxrmodel.inference.predictor import Model, load
from cxrmodel.training.latents import extract_latents
from tests.data.images.image_bytes import dicom

NUM_IMAGES = 36
SHAPE_PX = (96, 80)  # width and height: each fit gives other pixels
ABSOLUTE = 1e-6


@dataclass(frozen=True)
class OtherRun:
    """The latents that the stages make of other files with the networks of the small run."""

    bundle: Path
    model: Model
    paths: list[str]
    pixels: Pixels
    latents: pd.DataFrame


@pytest.fixture(
    scope="module", params=product(("png", "dcm"), ("crop", "pad", "resize")), ids="-".join
)
def other(request, run, bundle, tmp_path_factory) -> OtherRun:
    kind, fit = request.param
    folder = tmp_path_factory.mktemp("other")
    root, scratch, config = folder / "data", folder / "scratch", ImagesConfig(size=64, fit=fit)
    write_images(run.root, root, kind)
    index, images, split, latents = (folder / n for n in ("index", "images", "split", "latents"))
    for stage in (index, images, split, latents):
        stage.mkdir()
    build_index(DataConfig(), scan_source(DataConfig(root=str(root)), scratch), index)
    decode_images(config, str(root), index, images, scratch=scratch, num_workers=1)
    split_images(SplitConfig(), index, images, split)
    pixels = open_pixels(config, str(root), index, images, scratch=scratch, num_workers=1)
    extract_latents(
        LatentsConfig(batch_size=8), run.stage("vae"), pixels, split, latents,
        parts=folder / "parts", device="cpu",
    )  # fmt: skip
    copy = shutil.copytree(bundle, folder / "bundle")
    description = json.loads((copy / "model.json").read_text())
    description["images"]["fit"] = fit
    (copy / "model.json").write_text(json.dumps(description))
    write_checksums(copy)
    table = pd.read_parquet(latents / "latents.parquet")
    paths = [str(root / "images" / name) for name in table["image"]]
    return OtherRun(copy, load(copy, device="cpu"), paths, pixels, table)


def write_images(source, root, kind) -> None:
    """Write some images of a data set in another shape, as PNG or DICOM files."""
    (root / "images").mkdir(parents=True)
    table = pd.read_csv(source / "Data_Entry_2017_v2020.csv")
    there = [(source / "images" / name).exists() for name in table["Image Index"]]
    table = table[there].head(NUM_IMAGES)
    for name in table["Image Index"]:
        with Image.open(source / "images" / name) as image:
            wide = image.convert("L").resize(SHAPE_PX)
        path = (root / "images" / name).with_suffix(f".{kind}")
        if kind == "png":
            wide.save(path)
        else:
            path.write_bytes(dicom(np.array(wide)))
    table["Image Index"] = table["Image Index"].str.replace(".png", f".{kind}")
    table.to_csv(root / "Data_Entry_2017_v2020.csv", index=False)


def check_equal(table: pd.DataFrame, other: OtherRun) -> None:
    latents = other.latents.head(len(table))
    assert table["image"].tolist() == other.paths[: len(table)]
    assert set(table["status"]) == {"ok"}
    of_run = [*(f"mu_{dim:02d}" for dim in range(64)), "l1"]
    np.testing.assert_allclose(table[of_run], latents[of_run], rtol=0, atol=ABSOLUTE)
    rows = other.pixels.rows_of(latents["image"].tolist())
    scores = other.model.score(other.pixels.read(rows))
    same = [*(f"p_{label}" for label in other.model.labels), "sharpness", "distance"]
    # The distance is a root of sums of many products of latents.
    absolute = [1e-4 if name == "distance" else ABSOLUTE for name in same]
    differences = np.abs(table[same].to_numpy(float) - scores[same].to_numpy(float)).max(axis=0)
    assert (differences <= absolute).all(), dict(zip(same, differences, strict=True))


@pytest.mark.parametrize(("batch_size", "num_images"), [(1, 8), (32, NUM_IMAGES)])
def test_files_score_as_the_stages_do(other, batch_size, num_images):
    paths = other.paths[:num_images]
    check_equal(other.model.predict(paths, batch_size=batch_size, gate=False), other)


def test_the_fit_makes_a_difference(other, bundle):
    table = other.model.predict(other.paths[:4], gate=False)
    plain = load(bundle, device="cpu").predict(other.paths[:4], gate=False)
    is_same = other.model.preprocessing.fit == "crop"
    assert np.allclose(table["mu_00"], plain["mu_00"], atol=ABSOLUTE) == is_same


@pytest.mark.parametrize("other", [("png", "crop"), ("dcm", "pad")], indirect=True, ids="-".join)
def test_processes_at_once_give_the_same(other, tmp_path):
    command = [sys.executable, "-m", "cxrmodel", "predict", str(other.bundle), *other.paths[:16]]
    outs = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    flags = (["--batch-size", "1"], ["--batch-size", "12"])
    running = [
        subprocess.Popen([*command, "--out", str(out), "--no-gate", "--device", "cpu", *more])
        for out, more in zip(outs, flags, strict=True)
    ]
    for process, out in zip(running, outs, strict=True):
        assert process.wait(120) == 0
        check_equal(pd.read_parquet(out), other)
