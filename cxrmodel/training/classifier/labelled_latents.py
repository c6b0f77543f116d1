"""The latents of every image beside its labels."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrmodel.data.label_columns import label_names, label_values, learnable
from cxrmodel.errors import DamagedArtifactError, DataError
from cxrmodel.storage.layout import INDEX_FILE, LATENTS_FILE
from cxrmodel.training.network_files import REMEDY, read_table

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledLatents:
    """Every row of the latents with its labels; shapes: Z latent dimensions, K labels.

    Attributes:
        rows: (N, 2), columns `image` and `split`.
        latents: (N, Z), float32, posterior means.
        labels: (N, K), float32: 1, 0, or NaN where unknown.
        names: K labels that can be learned: train has a positive and a negative image of each.
        left_out: Why each of the data set's other labels cannot be learned, by name.
    """

    rows: pd.DataFrame
    latents: Tensor
    labels: Tensor
    names: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    def part(self, split: str) -> tuple[Tensor, Tensor]:
        """Return latents and labels of the images of `train`, `val` or `test` with any label."""
        of_part = torch.from_numpy((self.rows["split"] == split).to_numpy(dtype=bool).copy())
        chosen = of_part & ~self.labels.isnan().all(dim=1)
        return self.latents[chosen], self.labels[chosen]


def read_labelled_latents(latents: Path, index: Path) -> LabelledLatents:
    """Read both stages' folders and join them by image.

    Raises:
        DataError: An image is not in the index.
        DamagedArtifactError: A file is missing or unreadable, or the latents are not all numbers.
    """
    path = latents / LATENTS_FILE
    table = read_table(path, ["image", "split", "mu_00"])
    mu = table[[name for name in table.columns if name.startswith("mu_")]].to_numpy("float32")
    broken = ~np.isfinite(mu).all(axis=1)
    if broken.any():
        raise DamagedArtifactError(
            f"{path} has latents that are not finite, of {broken.sum()} of {len(table)} images; "
            f"the first is {table['image'][broken].iloc[0]}. {REMEDY}."
        )
    names = label_names(index / INDEX_FILE)
    known = pd.read_parquet(index / INDEX_FILE, columns=["image", *names]).set_index("image")
    strange = ~table["image"].isin(known.index)
    if strange.any():
        raise DataError(
            f"{strange.sum()} images of {path} are not in {index / INDEX_FILE}, the first is "
            f"{table['image'][strange].iloc[0]}. Use an index of the same data."
        )
    labels = label_values(known.loc[table["image"]], names)
    in_train = (table["split"] == "train").to_numpy()
    left_out = _left_out(names, labels[in_train])
    kept = [name not in left_out for name in names]
    return LabelledLatents(
        table[["image", "split"]],
        torch.from_numpy(mu.copy()),
        torch.from_numpy(labels[:, kept].astype("float32")),
        tuple(name for name in names if name not in left_out),
        left_out,
    )


def _left_out(names: tuple[str, ...], train_labels: NDArray[np.float64]) -> dict[str, str]:
    """Return why labels cannot be learned, by name; without a train image none is left out."""
    found = {}
    for name, column, can_be in zip(names, train_labels.T, learnable(train_labels), strict=True):
        if len(train_labels) and not can_be:
            known = column[~np.isnan(column)]
            kind = "negative" if known.any() else "positive" if len(known) else "labelled"
            found[name] = f"no {kind} image in train"
    if found:
        listed = ", ".join(f"{name} ({reason})" for name, reason in found.items())
        logger.warning("Left out of the classifier, since they cannot be learned: %s", listed)
    return found
