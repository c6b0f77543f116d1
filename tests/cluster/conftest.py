"""A small data set, decoded and split, and a Ray cluster of two workers on this machine."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from cxrmodel.config import DataConfig, ImagesConfig, SplitConfig
from cxrmodel.data.images.pixels import decode_images, open_pixels
from cxrmodel.data.index import build_index
from cxrmodel.data.source import scan_source
from cxrmodel.data.splits import split_images
from cxrmodel.phantom.dataset import write_phantoms

SIZE = 64


@dataclass
class Prepared:
    """What the stages before training have left."""

    folder: Path
    images: ImagesConfig

    @property
    def root(self) -> str:
        return str(self.folder / "data")

    @property
    def split(self) -> Path:
        return self.folder / "split"

    @property
    def open_pixels(self):
        places = (self.folder / "index", self.folder / "images")
        return partial(open_pixels, self.images, self.root, *places, scratch=self.folder)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Prepared:
    made = Prepared(tmp_path_factory.mktemp("prepared"), ImagesConfig(size=SIZE))
    for stage in ("index", "images", "split"):
        (made.folder / stage).mkdir()
    write_phantoms(Path(made.root), 40, size_px=SIZE)
    data = DataConfig(root=made.root)
    build_index(data, scan_source(data, made.folder), made.folder / "index")
    index, images = made.folder / "index", made.folder / "images"
    decode_images(made.images, made.root, index, images, scratch=made.folder)
    split_images(SplitConfig(), index, images, made.split)
    return made


@pytest.fixture(scope="package")
def cluster():
    """A Ray cluster with as many cores as there are workers, whatever the machine has."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    ray.init(
        num_cpus=2, _node_ip_address="127.0.0.1", include_dashboard=False, logging_level="warning"
    )
    yield ray
    ray.shutdown()
