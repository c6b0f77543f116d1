"""The latents of every image beside its labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.errors import DamagedArtifactError, DataError
from cxrmodel.storage.layout import INDEX_FILE, LATENTS_FILE
from cxrmodel.training.network_files import REMEDY, read_table


@dataclass(frozen=True)
class LabelledLatents:
    """Every row of the latents with its labels; shapes: Z latent dimensions, K pathologies.

    Attributes:
        rows: (N, 2), columns `image` and `split`.
        latents: (N, Z), float32, posterior means.
        labels: (N, K), float32, 0 or 1, in the order of `PATHOLOGIES`.
    """

    rows: pd.DataFrame
    latents: Tensor
    labels: Tensor

    def part(self, split: str) -> tuple[Tensor, Tensor]:
        """Return latents and labels of `train`, `val` or `test`."""
        chosen = torch.from_numpy((self.rows["split"] == split).to_numpy(dtype=bool).copy())
        return self.latents[chosen], self.labels[chosen]


def read_labelled_latents(latents: Path, index: Path) -> LabelledLatents:
    """Read both stages' folders and join them by image.

    Raises:
        DataError: An image has no labels.
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
    labels = pd.read_parquet(index / INDEX_FILE, columns=["image", *PATHOLOGIES])
    joined = labels.set_index("image").reindex(table["image"])
    unlabelled = joined.index[joined[PATHOLOGIES[0]].isna()]
    if len(unlabelled):
        raise DataError(
            f"{len(unlabelled)} images of {path} are not in "
            f"{index / INDEX_FILE}, the first is {unlabelled[0]}. Use an index of the same data."
        )
    return LabelledLatents(
        table[["image", "split"]],
        torch.from_numpy(mu.copy()),
        torch.from_numpy(joined.to_numpy(dtype="float32").copy()),
    )
