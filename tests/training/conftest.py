"""Small images in memory, and the folders of the stages before training."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cxrmodel.config import VAEConfig
from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.data.label_columns import any_abnormal
from cxrmodel.training.vae.fit import fit_vae

NARROW = (1, 4, 4, 8, 8, 8, 8)

TINY_VAE = VAEConfig(epochs=2, batch_size=4, latent_dim=4, lr=1e-3)

PARTS = ("train",) * 7 + ("val",) * 3 + ("test",) * 2


@dataclass
class MemoryPixels:
    """The `Pixels` protocol over an array."""

    images: np.ndarray
    names: list[str] = field(init=False)

    def __post_init__(self):
        self.size = self.images.shape[1]
        self.names = [f"{row:08d}_000.png" for row in range(len(self.images))]

    def rows_of(self, images):
        return np.array([self.names.index(name) for name in images], dtype=np.int64)

    def read(self, rows):
        return self.images[rows]


def draw_discs(num_images: int, size: int = 64, seed: int = 0) -> MemoryPixels:
    """Bright discs of different places and radii on a dark ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    centre_x, centre_y, radius = rng.uniform(0.3, 0.7, (3, num_images, 1, 1))
    distance = np.hypot(x - centre_x, y - centre_y)
    return MemoryPixels(np.where(distance < radius / 2, 220, 40).astype(np.uint8))


def write_split(directory: Path, pixels: MemoryPixels) -> Path:
    """Write a split stage's folder for some images."""
    directory.mkdir(parents=True, exist_ok=True)
    parts = [PARTS[row % len(PARTS)] for row in range(len(pixels.names))]
    table = pd.DataFrame({"image": pixels.names, "split": parts})
    table.to_parquet(directory / "split.parquet", index=False)
    return directory


@pytest.fixture(autouse=True)
def small_work(monkeypatch):
    """Narrow networks on one thread: the loops around them are what is tested."""
    monkeypatch.setattr("cxrmodel.models.vae.CHANNELS", NARROW)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def pixels():
    return draw_discs(24)


@pytest.fixture
def split(tmp_path, pixels):
    return write_split(tmp_path / "split", pixels)


@pytest.fixture
def labels():
    """Write an index stage's folder with the labels of some images."""

    def write(directory: Path, names: list[str], values: np.ndarray) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame(values, columns=list(PATHOLOGIES)).astype("Int8")
        table.insert(0, "image", names)
        table.insert(1, "any_abnormal", any_abnormal(table[list(PATHOLOGIES)]))
        table.to_parquet(directory / "index.parquet", index=False)
        return directory

    return write


@pytest.fixture
def fit(tmp_path, pixels, split, device):
    """Train on the images into a folder, with checkpoints beside it."""

    def run(
        name="vae",
        config=TINY_VAE,
        pixels=pixels,
        checkpoints="checkpoints",
        where=device,
        **options,
    ):
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        folder = tmp_path / checkpoints
        summary = fit_vae(
            config, pixels, split, directory, checkpoints=folder, device=where, **options
        )
        return directory, summary

    return run


@pytest.fixture
def report_every_step(monkeypatch):
    monkeypatch.setattr("cxrmodel.training.speed.REPORT_EVERY_S", 0.0)
