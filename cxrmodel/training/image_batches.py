"""The images of a split, and their way onto the device in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrmodel.errors import DataError
from cxrmodel.storage.layout import SPLIT_FILE
from cxrmodel.training.network_files import read_table

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

WHITE = 255  # the largest value of a uint8 pixel
MAX_MEAN_IMAGES, MEAN_BATCH = 1_024, 16
MORE_DATA = "a larger data set, or more of this one where data.fraction is below 1"

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class SplitRows:
    """Rows of the images in two parts of the split, each in index order.

    Attributes:
        train: (N,), rows of `Pixels`.
        val: (M,), rows of `Pixels`; may be empty.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]


def read_split(split: Path) -> pd.DataFrame:
    """Return the columns `image` and `split` of the split stage's folder, as strings."""
    columns = ["image", "split"]
    return read_table(split / SPLIT_FILE, columns)[columns]


def split_rows(split: Path, pixels: Pixels) -> SplitRows:
    """Find the train and validation images among the pixels.

    Raises:
        DataError: There is no train image, or one has no pixels.
    """
    rows = read_split(split)
    train, val = (rows.loc[rows["split"] == part, "image"].tolist() for part in ("train", "val"))
    if not train:
        raise DataError(f"{split / SPLIT_FILE} has no train image. Use {MORE_DATA}.")
    return SplitRows(pixels.rows_of(train), pixels.rows_of(val))


def in_batches(rows: NDArray[Number], batch_size: int) -> Iterator[NDArray[Number]]:
    """Cut an array into batches along its first axis; the last may be smaller."""
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]


def mean_image(pixels: Pixels, rows: NDArray[np.int64]) -> Tensor:
    """Return the mean of images, (S, S), float32 in [0, 1].

    Args:
        pixels: Where to read.
        rows: At least one; of more than 1,024, only 1,024 evenly spaced ones are read.
    """
    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_MEAN_IMAGES)).astype(np.int64)]
    total = np.zeros((pixels.size, pixels.size), np.int64)  # whole numbers: exact in any order
    for batch in in_batches(chosen, MEAN_BATCH):
        total += pixels.read(batch).sum(axis=0, dtype=np.int64)
    return torch.from_numpy(total / (WHITE * len(chosen))).float()


def to_device(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Move a batch as bytes and scale it there.

    Args:
        images: (B, S, S), uint8.
        device: Where to move it.

    Returns:
        (B, 1, S, S), float32 in [0, 1].
    """
    batch = torch.from_numpy(images)
    if device.type == "cuda":
        batch = batch.pin_memory()  # else the copy cannot overlap with the previous step
    scaled = batch.to(device, non_blocking=True).float().div_(WHITE)  # (B, S, S)
    return scaled.unsqueeze(1)
