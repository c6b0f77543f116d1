"""Small data sets of real PNG files, in NIH's layout."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image
from s3fs import S3FileSystem

from cxrmodel.config import DataConfig
from cxrmodel.data.index import build_index
from cxrmodel.data.source import scan_source

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
TAIL = ",2682,2749,0.143,0.143"


def encode(pixels: np.ndarray, mode: str = "L") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def real_sample() -> Path:
    """Return a folder of 400 real images of NIH with the whole CSV, where one is at hand."""
    root = Path(os.environ.get("CHESTXRAY14_SAMPLE", ""))
    if not (root / "images").is_dir():
        pytest.skip("set CHESTXRAY14_SAMPLE to a folder of 400 real images with the whole CSV")
    return root


@pytest.fixture
def png() -> Callable[..., bytes]:
    """Return a function from a seed to the bytes of a noisy square PNG."""

    def make(seed: int, side: int = 64) -> bytes:
        return encode(np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8))

    return make


@pytest.fixture
def damage() -> Callable[[Path, bytes], None]:
    """Return a function that changes a file's bytes but not its time, like a bad disk."""

    def write(path: Path, data: bytes) -> None:
        modified = path.stat().st_mtime_ns
        path.write_bytes(data)
        os.utime(path, ns=(modified, modified))

    return write


@pytest.fixture
def write_csv() -> Callable[..., Path]:
    """Return a function that writes rows (name, labels, patient id) in the v2020 shape."""

    def write(path: Path, rows: list[tuple[str, str, str]]) -> Path:
        lines = [f"{name},{labels},0,{patient},57,M,PA{TAIL}" for name, labels, patient in rows]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([HEADER, *lines]) + "\n")
        return path

    return write


@pytest.fixture
def make_root(tmp_path, png, write_csv) -> Callable[..., Path]:
    """Return a function that makes a folder of N good images, two a patient, and its CSV."""

    def make(num_images: int = 8, side: int = 64) -> Path:
        root = tmp_path / "data"
        (root / "images").mkdir(parents=True)
        rows = []
        for number in range(num_images):
            name = f"{number // 2 + 1:08d}_{number % 2:03d}.png"
            (root / "images" / name).write_bytes(png(number, side))
            rows.append((name, "Mass" if number % 3 == 0 else "No Finding", str(number // 2 + 1)))
        write_csv(root / "Data_Entry_2017_v2020.csv", rows)
        return root

    return make


@pytest.fixture
def index_of(tmp_path) -> Callable[..., Path]:
    """Return a function that runs the index stage on a root and returns its folder."""

    def index(root: Path | str, name: str = "index", **settings) -> Path:
        config = DataConfig(root=str(root), **settings)
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        build_index(config, scan_source(config, tmp_path / "scratch"), directory)
        return directory

    return index


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint, monkeypatch) -> Iterator[S3FileSystem]:
    """Return a file system on a real HTTP object store with an empty bucket `images`."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    S3FileSystem.clear_instance_cache()
    fs = S3FileSystem()
    fs.mkdir("xrays")
    yield fs
    S3FileSystem.clear_instance_cache()
    fs = S3FileSystem(endpoint_url=s3_endpoint, key="testing", secret="testing")
    fs.rm("xrays", recursive=True)
    S3FileSystem.clear_instance_cache()
