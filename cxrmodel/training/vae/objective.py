"""What training minimises: named terms of a batch, and how they add up to the loss.

Running sums, history, validation, progress, checkpoints and the report's curves follow the names of
the terms. A new objective is a module beside `l1_kl.py` and an entry in `OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from cxrmodel.config import VAEConfig
from cxrmodel.models.vae import VAEOutput
from cxrmodel.settings import not_one_of
from cxrmodel.training.vae.l1_kl import L1KL


class Objective(Protocol):
    """What the autoencoder is trained for.

    Attributes:
        terms: Names of what `measure` returns, in the order of the history's columns; the history
            has `train_` and `val_` before each. `loss` is not among them.
    """

    terms: tuple[str, ...]

    def measure(self, output: VAEOutput, image: Tensor) -> dict[str, Tensor]:
        """Measure a batch.

        Args:
            output: What the autoencoder made of the batch.
            image: (B, 1, S, S), float32 in [0, 1].

        Returns:
            Each term as a scalar, a mean over the batch.
        """

    def weights(self, step: int) -> dict[str, float]:
        """Return the weights of the loss at an optimiser step, from 0; each becomes a column."""

    def loss(self, terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
        """Return the loss of some terms: those of a batch, or means over many images.

        Args:
            terms: Scalars by name, on any device and in any precision.
            weights: Those of the step.
        """


OBJECTIVES: dict[str, Callable[[VAEConfig], Objective]] = {
    "l1_kl": L1KL,
}
"""Objectives by the name that `vae.objective` gives."""


def make_objective(config: VAEConfig) -> Objective:
    """Return the objective that the settings name.

    Raises:
        ValueError: There is none of that name.
    """
    if config.objective not in OBJECTIVES:
        raise ValueError(f"vae.objective: {not_one_of(config.objective, OBJECTIVES)}")
    return OBJECTIVES[config.objective](config)


def loss_of_means(
    objective: Objective, means: Mapping[str, float], weights: Mapping[str, float]
) -> float:
    """Return the loss of terms that were averaged over many images, in float64."""
    terms = {name: torch.tensor(means[name], dtype=torch.float64) for name in objective.terms}
    return float(objective.loss(terms, weights))
