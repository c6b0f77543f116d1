"""A small run, trained by the library, and its bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest

from cxrmodel.config import (
    ClassifierConfig,
    DataConfig,
    ImagesConfig,
    LatentsConfig,
    ReportConfig,
    SplitConfig,
    Stage,
    VAEConfig,
)
from cxrmodel.data.images.pixels import Pixels, decode_images, open_pixels
from cxrmodel.data.index import build_index
from cxrmodel.data.source import scan_source
from cxrmodel.data.splits import split_images
from cxrmodel.evaluation.baselines import fit_baselines
from cxrmodel.inference.build import BundleInputs, build_bundle
from cxrmodel.inference.predictor import Model, load
from cxrmodel.phantom import write_phantoms
from cxrmodel.report.run import RunInputs, RunRecord
from cxrmodel.report.write import write_report
from cxrmodel.storage.layout import INDEX_FILE, PCA_LATENTS_FOLDER
from cxrmodel.training.classifier.fit import fit_classifier
from cxrmodel.training.latents import extract_latents
from cxrmodel.training.vae.fit import fit_vae

NUM_IMAGES = 300
IMAGES = ImagesConfig(size=64)
REPORT = ReportConfig(num_reconstructions=2, tsne_points=60)
STAGES = tuple(stage for stage in get_args(Stage) if stage != "bundle")


@dataclass(frozen=True)
class SmallRun:
    """Folders of the stages of a run on phantom images of 64 px, and its data set."""

    root: Path
    folder: Path
    pixels: Pixels

    def stage(self, name: str) -> Path:
        return self.folder / name

    def write_bundle(self, directory: Path) -> Path:
        directory.mkdir()
        names = ("index", "images", "vae", "latents", "classifier", "baselines", "report")
        inputs = BundleInputs(**{name: self.stage(name) for name in names})
        build_bundle(inputs, self.pixels, IMAGES, "float32", directory)
        return directory


@pytest.fixture(scope="session")
def run(tmp_path_factory, device) -> SmallRun:
    return make_run(tmp_path_factory.mktemp("run"), device=device)


def make_run(
    folder: Path,
    num_images: int = NUM_IMAGES,
    relabel: Callable[[pd.DataFrame], pd.DataFrame] = lambda index: index,
    device: str = "cpu",
) -> SmallRun:
    """Run all stages up to the report; `relabel` changes the index as another data set would."""
    root, scratch = folder / "data", folder / "scratch"
    write_phantoms(root, num_images, size_px=IMAGES.size, workers=1)
    index, images, split, vae, latents, classifier, baselines, pca_network, report = (
        folder / name for name in STAGES
    )
    for name in STAGES:
        (folder / name).mkdir()
    build_index(DataConfig(), scan_source(DataConfig(root=str(root)), scratch), index)
    table = index / INDEX_FILE
    relabel(pd.read_parquet(table)).to_parquet(table, index=False)
    decode_images(IMAGES, str(root), index, images, scratch=scratch, num_workers=1)
    split_images(SplitConfig(), index, images, split)
    pixels = open_pixels(IMAGES, str(root), index, images, scratch=scratch, num_workers=1)
    config = VAEConfig(epochs=2, batch_size=8, lr=1e-3)
    fit_vae(config, pixels, split, vae, checkpoints=folder / "checkpoints", device=device)
    extract_latents(
        LatentsConfig(batch_size=8), vae, pixels, split, latents, parts=folder / "parts",
        device=device,
    )  # fmt: skip
    fit_classifier(ClassifierConfig(epochs=4), latents, index, classifier, device=device)
    fit_baselines(pixels, split, index, baselines)
    components = baselines / PCA_LATENTS_FOLDER
    fit_classifier(ClassifierConfig(epochs=4), components, index, pca_network, device=device)
    inputs = RunInputs(**{name: folder / name for name in STAGES[:-1]})
    write_report(REPORT, inputs, _record(), pixels, report)
    return SmallRun(root, folder, pixels)


@pytest.fixture(scope="session")
def bundle(run, tmp_path_factory) -> Path:
    return run.write_bundle(tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture(scope="session")
def model(bundle, device) -> Model:
    return load(bundle, device=device)


def _record() -> RunRecord:
    return RunRecord(
        config={
            "data": {"root": "phantom", "fraction": 1.0},
            "images": {"size": IMAGES.size, "fit": "crop"},
            "split": {"method": "patient", "seed": 42},
        },
        provenance={"code": "a1b2c3", "config": "d4e5f6", "packages": {"torch": "2.13.0"}},
        timings_s={"vae": 1.0},
        data_fingerprint="0123abcd" * 8,
        training_speed={"images_per_s": 1.0, "loader_wait": 0.0},
    )
