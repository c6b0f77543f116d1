"""How the cost of training grows: with the side of an image, the batch, the number of images."""

from __future__ import annotations

import shutil
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.runners import answer_of, peak_bytes
from benchmarks.sample import Sample
from cxrmodel.config import VAEConfig
from cxrmodel.data.images.pixels import Pixels
from cxrmodel.progress import Progress
from cxrmodel.storage.layout import SPLIT_FILE
from cxrmodel.training import speed
from cxrmodel.training.vae.fit import fit_vae

SIDES = (64, 128, 256, 512, 1024)
BATCHES = (1, 2, 4, 8, 16)
NUMBERS = (8, 16, 32)


class SmallPixels:
    """Every n-th pixel of other images: the cost of training does not depend on the content."""

    def __init__(self, pixels: Pixels, size: int) -> None:
        self._pixels, self.size = pixels, size
        self.names, self.rows_of = pixels.names, pixels.rows_of

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return (B, S, S), uint8."""
        step = self._pixels.size // self.size
        return np.ascontiguousarray(self._pixels.read(rows)[:, ::step, ::step])


def measure_growth(sample: Sample, config: VAEConfig, work: Path) -> dict[str, Any]:
    """Train short epochs, each kind in a process of its own.

    Returns:
        `ms_per_image_by_side`, `peak_gib_by_batch` at 1024 px, `epoch_s_by_images` and
        `loader_wait`, the share of the training's time at 1024 px spent waiting for images.
    """
    work.mkdir()
    by_side = {
        side: answer_of(time_epoch, sample, config, side, max(NUMBERS), work) for side in SIDES
    }
    by_batch = {}
    for size in BATCHES:
        batches = config.model_copy(update={"batch_size": size})
        by_batch[str(size)] = answer_of(peak_memory, sample, batches, work)
    by_number = {
        number: answer_of(time_epoch, sample, config, 512, number, work) for number in NUMBERS
    }
    return {
        "ms_per_image_by_side": {
            str(side): round(1e3 * epoch["seconds"] / max(NUMBERS), 1)
            for side, epoch in by_side.items()
        },
        "peak_gib_by_batch": by_batch,
        "epoch_s_by_images": {
            str(number): round(epoch["seconds"], 2) for number, epoch in by_number.items()
        },
        "loader_wait": round(by_side[max(SIDES)]["loader_wait"], 4),
    }


def time_epoch(
    answer: Connection, sample: Sample, config: VAEConfig, side: int, num_images: int, work: Path
) -> None:
    """Answer with the seconds of a second epoch, and the share of them spent waiting."""
    speed.REPORT_EVERY_S = 0.0  # after every step
    folder = work / f"{side}-{num_images}"
    split = _some(sample, num_images, folder)
    times: list[tuple[int, float, float]] = []

    def report(progress: Progress) -> None:
        wait = progress.metrics.get("loader_wait", 0.0)
        times.append((progress.done, time.perf_counter(), wait))

    long = config.model_copy(update={"epochs": 2, "checkpoint_every_s": 1e6})
    pixels = SmallPixels(sample.open(), side)
    fit_vae(long, pixels, split, folder, checkpoints=folder, device="cpu", report=report)
    shutil.rmtree(folder)
    steps = -(-num_images // config.batch_size)
    second = [entry for entry in times if entry[0] >= steps][: steps + 1]
    gaps = np.diff([entry[1] for entry in second])
    waits = np.array([entry[2] for entry in second[1:]])
    answer.send({"seconds": float(gaps.sum()), "loader_wait": float(waits @ gaps / gaps.sum())})


def peak_memory(answer: Connection, sample: Sample, config: VAEConfig, work: Path) -> None:
    """Answer with the largest resident memory of a process that trains for an epoch, in GiB."""
    folder = work / f"memory-{config.batch_size}"
    folder.mkdir()
    one = config.model_copy(update={"epochs": 1})
    fit_vae(one, sample.open(), sample.split, folder, checkpoints=folder, device="cpu")
    shutil.rmtree(folder)
    answer.send(round(peak_bytes() / 2**30, 2))


def _some(sample: Sample, num_images: int, folder: Path) -> Path:
    """Write a split of so many train images and those to validate with; return its folder."""
    directory = folder / "split"
    directory.mkdir(parents=True)
    split = pd.read_parquet(sample.split / SPLIT_FILE)
    train, val = split[split["split"] == "train"], split[split["split"] == "val"]
    pd.concat([train[:num_images], val]).to_parquet(directory / SPLIT_FILE, index=False)
    return directory
