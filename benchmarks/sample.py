"""The images of a benchmark, prepared by the product's own stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from cxrmodel.config import DataConfig, ImagesConfig, LatentsConfig, VAEConfig
from cxrmodel.data.images.pixels import Pixels, decode_images, open_pixels
from cxrmodel.data.index import build_index
from cxrmodel.data.source import scan_source
from cxrmodel.phantom import write_phantoms
from cxrmodel.storage.layout import INDEX_FILE, LISTING_FILE, SPLIT_FILE

FAST = Path(__file__).parents[1] / "configs" / "fast.yaml"
FLOP_PER_IMAGE = 29.7e9  # forward and backward at 1024 px
NUM_IMAGES = 48
NUM_VAL = 8  # 40 to train on: whole batches of 4 and of 8


@dataclass(frozen=True)
class Sample:
    """Some images of a data set: where their files and the folders of their first stages are.

    Attributes:
        root: Local folder of the data set.
        work: Folder of everything made from it.
        size: Side of a decoded image in pixels.
    """

    root: Path
    work: Path
    size: int = 1024

    @property
    def split(self) -> Path:
        """Folder of the split stage: eight images to validate with, the others to train on."""
        return self.work / "split"

    @property
    def paths(self) -> list[Path]:
        """The image files, in index order."""
        index = pd.read_parquet(self.work / "index" / INDEX_FILE, columns=["uri"])
        return [self.root / uri for uri in index["uri"]]

    def open(self) -> Pixels:
        """Open the memory map."""
        index, images = self.work / "index", self.work / "images"
        return open_pixels(
            ImagesConfig(size=self.size),
            str(self.root),
            index,
            images,
            scratch=self.work / "scratch",
        )


class RepeatedPixels:
    """The same images again and again, for an epoch longer than what is measured.

    Args:
        pixels: The images.
        num_images: How many there seem to be.
    """

    def __init__(self, pixels: Pixels, num_images: int) -> None:
        self._pixels, self.size = pixels, pixels.size
        self.names = [f"{row:08d}" for row in range(num_images)]

    def rows_of(self, images: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each image."""
        return np.array([int(name) for name in images], np.int64)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return (B, S, S), uint8."""
        return self._pixels.read(rows % len(self._pixels.names))

    def write_split(self, directory: Path) -> Path:
        """Write a split stage's folder in which all are train images; return it."""
        directory.mkdir(parents=True)
        table = pd.DataFrame({"image": self.names, "split": "train"})
        table.to_parquet(directory / SPLIT_FILE, index=False)
        return directory


def fast_config() -> tuple[VAEConfig, LatentsConfig]:
    """Return the settings of `configs/fast.yaml`."""
    fast = yaml.safe_load(FAST.read_text(encoding="utf-8"))
    return VAEConfig(**fast["vae"]), LatentsConfig(**fast["latents"])


def prepare(root: str | None, work: Path, size: int = 1024, num_images: int = NUM_IMAGES) -> Sample:
    """Index and decode some images of a local data set, or of a synthetic one."""
    if root is None:
        write_phantoms(work / "phantom", num_images, seed=0)
    sample = Sample(Path(root) if root else work / "phantom", work, size)
    for stage in ("index", "images", "split"):
        (work / stage).mkdir()
    source = scan_source(DataConfig(root=str(sample.root)), work / "scratch")
    num_found = len(pd.read_parquet(source.directory / LISTING_FILE))
    config = DataConfig(root=str(sample.root), fraction=min(1.0, num_images / num_found))
    build_index(config, source, work / "index")
    decode_images(
        ImagesConfig(size=size),
        str(sample.root),
        work / "index",
        work / "images",
        scratch=work / "scratch",
    )
    names = pd.read_parquet(work / "index" / INDEX_FILE, columns=["image"])
    part = np.where(np.arange(len(names)) < NUM_VAL, "val", "train")
    names.assign(split=part).to_parquet(sample.split / SPLIT_FILE, index=False)
    return sample
