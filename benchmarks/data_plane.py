"""The stages before training at the real size: 112,120 files, which become 117 GB of pixels.

The files are sparse and as long as real ones. Their names come from the given CSV, or from one that
is made up to be as uneven: over half of the patients have one image, some have 184.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.runners import answer_of, peak_bytes
from cxrmodel.config import DataConfig, ImagesConfig, SplitConfig
from cxrmodel.data.images.pixel_cache import PixelCache
from cxrmodel.data.images.reader import ImageReader
from cxrmodel.data.index import build_index
from cxrmodel.data.source import scan_source
from cxrmodel.data.splits import split_images
from cxrmodel.storage.layout import IMAGES_FILE, INDEX_FILE, OK

SIZES = (11_212, 112_120)
FILE_BYTES = 400_000
NUM_FOLDERS = 12
NUM_PATIENTS = 30_805
MAX_IMAGES_PER_PATIENT = 184
MIB = 1 << 20
HEADER = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age",
          "Patient Gender", "View Position")  # fmt: skip


def measure_data_plane(work: Path, csv_path: Path | None = None) -> dict[str, Any]:
    """Time the stages before training on sparse files, each size in a process of its own.

    Args:
        work: Empty folder; the files take no room there.
        csv_path: NIH's `Data_Entry_2017_v2020.csv`, if it is available.

    Returns:
        By number of images: scan_s, index_s, split_s, map_create_s and map_resume_s, seconds of
        wall time; cpu_s, of processor time in all of them; peak_mib, the process's peak memory.
    """
    results = {}
    for size in SIZES:
        root = make_root(work / str(size), size, csv_path)
        results[str(size)] = measured_apart(root, work / f"{size}-made")
    return results


def measured_apart(root: Path, made: Path) -> dict[str, Any]:
    """Return what the stages take in a process of their own.

    Args:
        root: The data set.
        made: Folder to make for what they write.
    """
    found: dict[str, Any] = answer_of(_measure_stages, root, made)
    return found


def make_root(root: Path, num_images: int, csv_path: Path | None) -> Path:
    """Make a folder of sparse files in Kaggle's layout, and the CSV beside them."""
    rows = _real_rows(csv_path) if csv_path else _made_up_rows()
    rows = rows[: num_images + 1]
    for number in range(NUM_FOLDERS):
        (root / f"images_{number + 1:03d}/images").mkdir(parents=True)
    for number, row in enumerate(rows[1:]):
        path = root / f"images_{number * NUM_FOLDERS // num_images + 1:03d}/images" / row[0]
        with path.open("wb") as stream:
            stream.truncate(FILE_BYTES)
    with (root / "Data_Entry_2017_v2020.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return root


def _real_rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as stream:
        return list(csv.reader(stream))


def _made_up_rows() -> list[list[str]]:
    rng = np.random.default_rng(0)
    images = np.minimum(rng.zipf(1.75, NUM_PATIENTS), MAX_IMAGES_PER_PATIENT)
    patients = np.resize(np.repeat(np.arange(NUM_PATIENTS), images), SIZES[-1])
    labels = rng.choice(["No Finding", "Effusion|Mass", "Infiltration"], SIZES[-1])
    views = rng.choice(["PA", "AP"], SIZES[-1])
    rows = [
        [f"{number:08d}_000.png", label, "0", str(patient), "57", "F", view]
        for number, (patient, label, view) in enumerate(zip(patients, labels, views, strict=True))
    ]
    return [list(HEADER), *rows]


def _measure_stages(answer: Connection, root: Path, made: Path) -> None:
    made.mkdir()
    config, seconds, cpu = DataConfig(root=str(root)), {}, time.process_time()

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - start, 3)

    with timed("scan_s"):
        source = scan_source(config, made)
    with timed("index_s"):
        num_images = build_index(config, source, made)["num_images"]
    images = pd.read_parquet(made / INDEX_FILE, columns=["image"]).assign(status=OK)
    images.to_parquet(made / IMAGES_FILE)
    with timed("split_s"):
        split_images(SplitConfig(), made, made, made)
    cache = PixelCache(ImagesConfig(), made, num_images, made)
    for name in ("map_create_s", "map_resume_s"):
        with timed(name):
            cache.build(ImageReader(ImagesConfig(), str(root), made), np.arange(0))
            cache.statuses()
    seconds["cpu_s"] = round(time.process_time() - cpu, 3)
    answer.send({**seconds, "peak_mib": round(peak_bytes() / 2**20)})
