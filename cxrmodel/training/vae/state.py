"""What a training of the autoencoder is at one moment, and its form as a checkpoint."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cxrmodel.config import VAEConfig
from cxrmodel.models.vae import VAE
from cxrmodel.training.batches import SplitRows
from cxrmodel.training.checkpoints import Checkpoint, EpochRecord
from cxrmodel.training.published import empty_network
from cxrmodel.training.randomness import Stream, seed_of

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

WEIGHTS, FIRST_MOMENT, SECOND_MOMENT = "weights", "exp_avg", "exp_avg_sq"  # Adam's names
SUMS = "sums"
NUM_SAMPLED_IMAGES = 8


@dataclass(frozen=True)
class TrainingState:
    """Where training is; replaced as a whole, so that an interruption never sees half of one.

    Attributes:
        step: Optimiser steps finished.
        sums: (4,), of the running epoch: L1 and KL in nats, each summed over images, the number of
            these, and the number of steps that were skipped; on the device.
        history: Metrics of each finished epoch.
        best_epoch: Number of the epoch with the lowest validation loss, from 1; 0 before it.
    """

    step: int
    sums: Tensor = field(repr=False)
    history: tuple[EpochRecord, ...] = ()
    best_epoch: int = 0


def no_sums(device: torch.device) -> Tensor:
    """Return the sums of an epoch's start; float64 wherever the device has it."""
    return torch.zeros(4, dtype=torch.float32 if device.type == "mps" else torch.float64).to(device)


def initial_vae(config: VAEConfig, image_size: int, device: torch.device) -> VAE:
    """Build a network with PyTorch's default initial weights, the same on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(config.seed, Stream.WEIGHTS))
        model = VAE(
            image_size,
            **architecture(config),
            gradient_checkpointing=config.gradient_checkpointing,
        )
    # Channels last is the layout that convolutions are fastest in; the arithmetic is the same.
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def architecture(config: VAEConfig) -> dict[str, Any]:
    """Return what decides the network's shape, besides the size of the images."""
    return {
        "latent_dim": config.latent_dim,
        "group_norm": config.group_norm,
        "output_bias": config.mean_image,
    }


def run_key(config: VAEConfig, pixels: Pixels, rows: SplitRows, precision: str) -> str:
    """Return the identity of a training: what must agree for a checkpoint to be used.

    The settings are as given: a batch that is `auto` is taken over from the checkpoint. Not in it
    is the device: a training may move, at the price of bit-for-bit repeatability.
    """
    names = np.asarray(pixels.names)
    network = empty_network(VAE, image_size=pixels.size, **architecture(config))
    identity = {
        "config": config.key_fields(),
        "precision": precision,
        "size": pixels.size,
        # Settings alone would not tell the network of another version of this package.
        "weights": {name: list(weight.shape) for name, weight in network.named_parameters()},
        "train": names[rows.train].tolist(),
        "val": names[rows.val].tolist(),
        "pixels": zlib.crc32(pixels.read(rows.train[:NUM_SAMPLED_IMAGES]).tobytes()),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def pack(
    model: VAE, optimizer: torch.optim.Adam, state: TrainingState, batch_size: int
) -> Checkpoint:
    """Copy a training to the CPU; its optimiser must have made a step."""
    tensors = {SUMS: state.sums.cpu(), **pack_weights(model)}
    for name, weight in model.named_parameters():
        for moment in (FIRST_MOMENT, SECOND_MOMENT):
            tensors[f"{moment}.{name}"] = optimizer.state[weight][moment].cpu().contiguous()
    return Checkpoint(state.step, list(state.history), state.best_epoch, batch_size, tensors)


def pack_weights(model: VAE) -> dict[str, Tensor]:
    """Copy the weights alone to the CPU, under the names they have in a checkpoint."""
    return {
        f"{WEIGHTS}.{name}": weight.detach().cpu().contiguous()
        for name, weight in model.named_parameters()
    }


def unpack_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return a checkpoint's weights under the network's own names."""
    prefix = f"{WEIGHTS}."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith(prefix)
    }


@torch.no_grad()
def unpack(checkpoint: Checkpoint, model: VAE, optimizer: torch.optim.Adam) -> TrainingState:
    """Set network and optimiser as they were, and return where training was."""
    model.load_state_dict(unpack_weights(checkpoint))
    sums = no_sums(next(model.parameters()).device).copy_(checkpoint.tensors[SUMS])
    skipped = sum(epoch["skipped_steps"] or 0 for epoch in checkpoint.history) + float(sums[3])
    num_updates = checkpoint.step - skipped
    for name, weight in model.named_parameters():
        optimizer.state[weight] = {
            "step": torch.tensor(float(num_updates), device=weight.device),
            # Like the weight in layout too: the fused kernel walks all of them side by side.
            **{
                moment: torch.empty_like(weight).copy_(checkpoint.tensors[f"{moment}.{name}"])
                for moment in (FIRST_MOMENT, SECOND_MOMENT)
            },
        }
    return TrainingState(checkpoint.step, sums, tuple(checkpoint.history), checkpoint.best_epoch)
