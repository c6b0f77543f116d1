"""Where a training of the autoencoder is, and how that becomes a checkpoint."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from cxrmodel.config import VAEConfig
from cxrmodel.models.vae import VAE
from cxrmodel.training.checkpoints import Checkpoint, EpochRecord
from cxrmodel.training.image_batches import SplitRows
from cxrmodel.training.network_files import contiguous_state, empty_network
from cxrmodel.training.randomness import Stream, seed_of
from cxrmodel.training.vae.objective import make_objective

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

WEIGHTS = "weights."  # before their names in a checkpoint
NUM_SAMPLED_IMAGES = 8


@dataclass(frozen=True)
class TrainingState:
    """Where training is; replaced as a whole, so that an interruption never sees half of one.

    Attributes:
        step: Optimiser steps finished.
        sums: (T + 2,), of the running epoch: each of the T terms of the objective summed over
            images, the number of these images, and the number of skipped steps; on the device.
        history: Metrics of each finished epoch.
        best_epoch: Number of the epoch with the lowest validation loss, from 1; 0: none yet.
    """

    step: int
    sums: Tensor = field(repr=False)
    history: tuple[EpochRecord, ...] = ()
    best_epoch: int = 0

    @classmethod
    def first(cls, num_terms: int, device: torch.device) -> Self:
        """Return the state before the first step; sums are float64 where the device has it."""
        dtype = torch.float32 if device.type == "mps" else torch.float64
        return cls(0, torch.zeros(num_terms + 2, dtype=dtype).to(device))

    @property
    def num_epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    @property
    def best_loss(self) -> float | None:
        """Lowest validation loss so far, if there is one."""
        return self.history[self.best_epoch - 1]["val_loss"] if self.best_epoch else None

    def after_step(self, sums: Tensor) -> Self:
        """Return the state after one more step, whose sums these are."""
        return replace(self, step=self.step + 1, sums=self.sums + sums)

    def after_epoch(self, record: EpochRecord, *, is_best: bool) -> Self:
        """Return the state after one more epoch."""
        return replace(
            self,
            sums=torch.zeros_like(self.sums),
            history=(*self.history, record),
            best_epoch=self.num_epochs + 1 if is_best else self.best_epoch,
        )


def initial_vae(config: VAEConfig, image_size: int, device: torch.device) -> VAE:
    """Build a network with PyTorch's default initial weights, the same on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(config.seed, Stream.WEIGHTS))
        model = VAE(
            image_size,
            **architecture(config),
            gradient_checkpointing=config.gradient_checkpointing,
        )
    # Convolutions are fastest in the layout channels last; the arithmetic is the same.
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def architecture(config: VAEConfig) -> dict[str, Any]:
    """Return what decides the network's shape, besides the size of the images."""
    return {
        "latent_dim": config.latent_dim,
        "group_norm": config.group_norm,
        "output_bias": config.mean_image,
    }


def run_key(config: VAEConfig, pixels: Pixels, rows: SplitRows, precision: str) -> str:
    """Return the identity of a training: a checkpoint with another one is not used.

    The settings are as given: a batch size that is `auto` is taken from the checkpoint. The device
    is not part of it: a training may move, at the price of bit-for-bit repeatability.
    """
    names = np.asarray(pixels.names)
    network = empty_network(VAE, image_size=pixels.size, **architecture(config))
    identity = {
        "config": config.key_fields(),
        "precision": precision,
        "size": pixels.size,
        # Another version of this package may have another network, or measure other terms.
        "weights": {name: list(weight.shape) for name, weight in network.named_parameters()},
        "terms": make_objective(config).terms,
        "train": names[rows.train].tolist(),
        "val": names[rows.val].tolist(),
        "pixels": zlib.crc32(pixels.read(rows.train[:NUM_SAMPLED_IMAGES]).tobytes()),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def packed_weights(model: VAE) -> dict[str, Tensor]:
    """Copy the weights to the CPU, under the names that they have in a checkpoint."""
    return {f"{WEIGHTS}{name}": weight for name, weight in contiguous_state(model).items()}


def weights_in(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return a checkpoint's weights under the network's own names."""
    return {
        name.removeprefix(WEIGHTS): tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith(WEIGHTS)
    }
