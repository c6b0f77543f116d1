"""Small stage folders in the format that the stages write, with made-up content."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cxrmodel.config import ClassifierConfig, ReportConfig
from cxrmodel.data.datasets.boxes import BOX_GRID_PX
from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.data.label_columns import any_abnormal, label_values, learnable
from cxrmodel.evaluation.baselines import fit_baselines
from cxrmodel.models.vae import VAE
from cxrmodel.report.measure import measure
from cxrmodel.report.run import RunInputs, RunRecord, read_run
from cxrmodel.report.write import write_report
from cxrmodel.storage.layout import PCA_LATENTS_FOLDER
from cxrmodel.training.classifier.fit import fit_classifier
from cxrmodel.training.network_files import contiguous_state, write_config, write_weights

SIZE = 64
LATENT_DIM = 8
SMALL_REPORT = ReportConfig(num_reconstructions=3, tsne_points=60)


class ArrayPixels:
    """Images in memory, behind the interface of the image cache."""

    def __init__(self, names: list[str], images: np.ndarray) -> None:
        self.names, self.images, self.size = names, images, images.shape[-1]
        self._rows = {name: row for row, name in enumerate(names)}

    def rows_of(self, images):
        return np.array([self._rows[image] for image in images], dtype=np.int64)

    def read(self, rows):
        return self.images[rows]


@dataclass
class MadeRun:
    inputs: RunInputs
    record: RunRecord
    pixels: ArrayPixels


def smooth_images(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Bright blobs on dark ground, a few numbers each."""
    grid = np.linspace(-1, 1, size)
    x, y = grid[None, None, :], grid[None, :, None]
    centre = rng.uniform(-0.6, 0.6, (4, count, 1, 1))
    width = rng.uniform(0.1, 0.5, (2, count, 1, 1))
    one = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / width[0])
    other = np.exp(-((x - centre[2]) ** 2 + (y - centre[3]) ** 2) / width[1])
    noise = rng.normal(0, 0.01, (count, size, size))
    return (np.clip((one + other) / 2 + noise, 0, 1) * 255).astype(np.uint8)


def write_tables(directory: Path, rng: np.random.Generator, count: int, without=()) -> pd.DataFrame:
    """Index, images and split, with a ledger; `without`: pathologies that only train has."""
    names = [f"{row:08d}_000.png" for row in range(count)]
    patients = np.sort(rng.integers(0, count // 2, count))
    labels = (rng.random((count, 14)) < np.linspace(0.08, 0.4, 14)).astype(np.uint8)
    index = pd.DataFrame(
        {
            "image": names,
            "uri": [f"images/{name}" for name in names],
            "patient_id": [str(patient) for patient in patients],
            "age": pd.array(rng.integers(1, 90, count), dtype="Int16"),
            "sex": rng.choice(["F", "M"], count),
            "view": rng.choice(
                np.array(["AP", "PA", None], dtype=object), count, p=[0.4, 0.5, 0.1]
            ),
            "follow_up": pd.array(rng.integers(0, 9, count), dtype="Int32"),
            "official": pd.array([None] * count, dtype="string"),
            "source": "nih",
        }
    )
    part = np.array(["train", "val", "test"])[np.searchsorted([0.6, 0.8], rng.random(count // 2))]
    split = pd.DataFrame({"image": names, "split": part[patients]})
    labels[np.ix_(part[patients] != "train", [PATHOLOGIES.index(name) for name in without])] = 0
    hot = pd.DataFrame(labels, columns=list(PATHOLOGIES)).astype("Int8")
    index = pd.concat([index, any_abnormal(hot), hot], axis="columns")
    empty = pd.DataFrame({"image": [], "reason": [], "detail": []}, dtype="str")
    missing = pd.DataFrame(
        {
            "image": ["99999999_000.png", "99999999_001.png", "99999999_002.png"],
            "reason": ["image_missing", "image_missing", "duplicate_row"],
            "detail": ["no such file", "no such file", "row 7 <b>& row 9</b>"],
        }
    )
    for stage in fields(RunInputs):
        (directory / stage.name).mkdir(parents=True)
    index.to_parquet(directory / "index/index.parquet", index=False)
    missing.to_parquet(directory / "index/excluded.parquet", index=False)
    empty.to_parquet(directory / "images/excluded.parquet", index=False)
    checksums = pd.DataFrame({"image": names, "crc32": np.arange(count, dtype=np.uint32)})
    checksums = checksums.assign(width=np.uint32(SIZE), height=np.uint32(SIZE), status="ok")
    checksums.to_parquet(directory / "images/images.parquet", index=False)
    write_boxes(directory, names[::3])
    empty.to_parquet(directory / "split/excluded.parquet", index=False)
    split.to_parquet(directory / "split/split.parquet", index=False)
    return index.merge(split, on="image")


def write_boxes(directory: Path, names: list[str]) -> None:
    """A box per image, of three pathologies in turn."""
    corners = np.random.default_rng(5).uniform(0, BOX_GRID_PX / 2, (2, len(names)))
    boxes = pd.DataFrame({"image": names, "pathology": np.resize(PATHOLOGIES[:3], len(names))})
    boxes["x"], boxes["y"] = corners.astype(np.float32)
    boxes[["width", "height"]] = np.float32(BOX_GRID_PX / 3)
    boxes.to_parquet(directory / "index/boxes.parquet", index=False)
    (directory / "index/notes.json").write_text("[]")
    (directory / "split/notes.json").write_text("[]")


def write_models(
    directory: Path, rng: np.random.Generator, table: pd.DataFrame, epochs: int
) -> None:
    """Histories, latents and predictions that know a little of the labels."""
    count = len(table)
    decay = 0.03 + 0.1 * np.exp(-np.arange(epochs) / 2)
    epoch = np.arange(1, epochs + 1)
    pd.DataFrame(
        {
            "epoch": epoch,
            "step": epoch * count,
            "train_l1": decay,
            "val_l1": decay + 0.004,
            "train_kl_nats": 9 - 20 * decay,
            "val_kl_nats": 8.8 - 20 * decay,
            "val_kl_nats_per_dim": (8.8 - 20 * decay) / LATENT_DIM,
            "train_loss": decay,
            "val_loss": decay,
            "active_units": LATENT_DIM,
            "posterior_variance": 1 - decay,
            "lr": 1e-4,
        }
    ).to_parquet(directory / "vae/history.parquet", index=False)
    pd.DataFrame(
        {"epoch": epoch, "train_loss": 2 * decay, "val_loss": 2 * decay + 0.03}
    ).to_parquet(directory / "classifier/history.parquet", index=False)
    labels = label_values(table, PATHOLOGIES)
    latents = table[["image", "split"]].copy()
    for column in range(LATENT_DIM):
        latents[f"mu_{column:02d}"] = rng.normal(labels[:, column], 1).astype(np.float32)
        latents[f"logvar_{column:02d}"] = rng.normal(-2, 0.1, count).astype(np.float32)
    latents["l1"] = rng.uniform(0.02, 0.04, count).astype(np.float32)
    latents["psnr"] = rng.uniform(22, 28, count).astype(np.float32)
    similarity = rng.uniform(0.6, 0.9, count).astype(np.float32)
    latents["ssim"] = np.where(table["split"] == "test", similarity, np.float32("nan"))
    latents["ms_ssim"] = np.full(count, np.nan, np.float32)  # the images are small
    latents.to_parquet(directory / "latents/latents.parquet", index=False)
    predictions = table[["image", "split"]].copy()
    can_be_learned = learnable(labels[(table["split"] == "train").to_numpy()])
    left_out = {}
    for column, name in enumerate(PATHOLOGIES):
        logits = rng.normal(labels[:, column], 1.2) - 1.5
        if not can_be_learned[column]:
            left_out[name] = "no positive image in train"
            continue
        predictions[f"p_{name}"] = (1 / (1 + np.exp(-logits))).astype(np.float32)
    predictions.to_parquet(directory / "classifier/predictions.parquet", index=False)
    names = [name for name in PATHOLOGIES if name not in left_out]
    write_config(directory / "classifier", {"labels": names, "labels_left_out": left_out})


def write_vae(directory: Path) -> None:
    torch.manual_seed(0)
    write_config(
        directory,
        {
            "architecture": {
                "group_norm": False,
                "output_bias": False,
                "image_size": SIZE,
                "latent_dim": LATENT_DIM,
            }
        },
    )
    write_weights(directory / "vae.safetensors", contiguous_state(VAE(SIZE, LATENT_DIM)))


def make_record(**settings) -> RunRecord:
    config = {
        "data": {"root": "/data/ChestXray14", "fraction": 1.0},
        "images": {"size": SIZE, "fit": "crop"},
        "split": {"method": "patient", "seed": 42},
    }
    for section, values in settings.items():
        config[section] = {**config.get(section, {}), **values}
    return RunRecord(
        config=config,
        provenance={"code": "a1b2c3", "config": "d4e5f6", "packages": {"torch": "2.13.0"}},
        timings_s={"index": 1.25, "vae": 3725.0},
        data_fingerprint="0123abcd" * 8,
        training_speed={"images_per_s": 12.34, "loader_wait": 0.0021},
    )


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
    """Return a function that writes the folders of a run and describes it."""

    def make(count=240, epochs=4, without=("Hernia",), seed=0, **settings) -> MadeRun:
        directory = tmp_path_factory.mktemp("run")
        rng = np.random.default_rng(seed)
        table = write_tables(directory, rng, count, without)
        write_models(directory, rng, table, epochs)
        write_vae(directory / "vae")
        pixels = ArrayPixels(table["image"].tolist(), smooth_images(count, SIZE, rng))
        inputs = RunInputs(**{stage.name: directory / stage.name for stage in fields(RunInputs)})
        if fit_baselines(pixels, inputs.split, inputs.index, inputs.baselines)["num_components"]:
            config = ClassifierConfig(**settings.get("classifier", {}))
            components = inputs.baselines / PCA_LATENTS_FOLDER
            fit_classifier(config, components, inputs.index, inputs.pca_network, device="cpu")
        return MadeRun(inputs, make_record(**settings), pixels)

    return make


@pytest.fixture(scope="session")
def made_run(make_run) -> MadeRun:
    return make_run()


@pytest.fixture(scope="session")
def run(made_run):
    """What is read of the made run."""
    return read_run(made_run.inputs, made_run.record)


@pytest.fixture(scope="session")
def results(run, made_run):
    """The numbers of the made run."""
    return measure(run, made_run.pixels, seed=0)


@pytest.fixture(scope="session")
def report(made_run, tmp_path_factory):
    """Folder and summary of the made run's report."""
    directory = tmp_path_factory.mktemp("report")
    run = made_run
    summary = write_report(SMALL_REPORT, run.inputs, run.record, run.pixels, directory)
    return directory, summary


@pytest.fixture(scope="session")
def metrics(report):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads((report[0] / "metrics.json").read_text(), parse_constant=refuse)
