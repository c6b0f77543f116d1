"""The images of a benchmark, taken through the product's own stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxrmodel.config import DataConfig, ImagesConfig
from cxrmodel.data.index import build_index
from cxrmodel.data.phantom import write_phantoms
from cxrmodel.data.pixels import Pixels, decode_images, open_pixels
from cxrmodel.data.source import scan_source

NUM_IMAGES = 48
NUM_VAL = 8  # 40 to train on: whole batches of 4 and of 8


@dataclass(frozen=True)
class Films:
    """Where a data set's files and the folders of its first stages are; sent to each process.

    Attributes:
        root: Local folder of the data set.
        work: Folder of everything made from it.
    """

    root: Path
    work: Path

    @property
    def split(self) -> Path:
        """Folder of the split stage: eight images to validate with, the others to train on."""
        return self.work / "split"

    @property
    def paths(self) -> list[Path]:
        """The image files, in index order."""
        index = pd.read_parquet(self.work / "index" / "index.parquet", columns=["uri"])
        return [self.root / uri for uri in index["uri"]]

    def open(self) -> Pixels:
        """Open the memory map."""
        index, images = self.work / "index", self.work / "images"
        return open_pixels(
            ImagesConfig(), str(self.root), index, images, scratch=self.work / "scratch"
        )


def prepare(root: str | None, work: Path) -> Films:
    """Index and decode some images of a local data set, or of a synthetic one."""
    if root is None:
        write_phantoms(work / "phantom", NUM_IMAGES, seed=0)
    films = Films(Path(root) if root else work / "phantom", work)
    for stage in ("index", "images", "split"):
        (work / stage).mkdir()
    source = scan_source(DataConfig(root=str(films.root)), work / "scratch")
    num_found = len(pd.read_parquet(source.directory / "listing.parquet"))
    config = DataConfig(root=str(films.root), fraction=min(1.0, NUM_IMAGES / num_found))
    build_index(config, source, work / "index")
    decode_images(
        ImagesConfig(),
        str(films.root),
        work / "index",
        work / "images",
        scratch=work / "scratch",
    )
    names = pd.read_parquet(work / "index" / "index.parquet", columns=["image"])
    part = np.where(np.arange(len(names)) < NUM_VAL, "val", "train")
    names.assign(split=part).to_parquet(films.split / "split.parquet", index=False)
    return films
