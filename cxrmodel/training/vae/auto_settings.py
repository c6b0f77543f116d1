"""Settings that are `auto`, as the machine decides them: the batch size, from the memory it has."""

from __future__ import annotations

import logging
import math
from typing import Literal

import torch
from torch import Tensor

from cxrmodel.config import VAEConfig
from cxrmodel.machine import usable_memory_bytes
from cxrmodel.models.vae import VAE
from cxrmodel.training.devices import autocast
from cxrmodel.training.vae.objective import Objective, make_objective
from cxrmodel.training.vae.state import initial_vae

LARGEST_BATCH = 64
USABLE_SHARE = 0.5  # of the memory; the rest is for prefetched pixels, workspaces and the system
STEP_FACTOR = 2.5  # a step also holds the gradients of what it saved, most of them at its end
STATES_PER_WEIGHT = 4  # the weight, its gradient and Adam's two moments

logger = logging.getLogger(__name__)


class ResolvedVAEConfig(VAEConfig):
    """The settings a training runs with: nothing in them is `auto`."""

    batch_size: int
    precision: Literal["float32", "bfloat16"]

    def steps_per_epoch(self, num_images: int) -> int:
        """Return the number of batches in an epoch of so many train images."""
        return math.ceil(num_images / self.batch_size)


def resolve_config(
    config: VAEConfig,
    image_size: int,
    device: torch.device,
    precision: Literal["float32", "bfloat16"],
    batch_size: int | None = None,
    num_processes: int = 1,
) -> ResolvedVAEConfig:
    """Fill in what is `auto`.

    Where `batch_size` is `auto`, the learning rate is multiplied by its square root, as the
    variance of a step's gradient requires with Adam: Malladi et al., On the SDEs and Scaling Rules
    for Adaptive Gradient Algorithms, 2022, arXiv:2205.10287. Where it is a number, it is not.

    Args:
        config: As given.
        image_size: Side of the images in pixels.
        device: Where to compute.
        precision: What `config.precision` is there.
        batch_size: What `auto` was in the attempt that this one continues.
        num_processes: Processes that share a batch.
    """
    resolved: dict[str, object] = {"precision": precision}
    if config.batch_size == "auto":
        if batch_size is None:
            model = initial_vae(config, image_size, device)
            batch_size = num_processes * largest_batch(model, make_objective(config), precision)
        lr = config.lr * math.sqrt(batch_size)
        logger.info(
            "vae.batch_size is auto: %d images per step, at a learning rate of %.3g", batch_size, lr
        )
        resolved.update(batch_size=batch_size, lr=lr)
    return ResolvedVAEConfig(**{**config.model_dump(), **resolved})


def largest_batch(model: VAE, objective: Objective, precision: str) -> int:
    """Return the largest power of two of images, up to 64, that a training step has room for.

    Only the total memory counts, not what is free at the moment: the same machine gives the same
    answer each time.

    Args:
        model: The network, on its device.
        objective: What it is trained for.
        precision: Resolved arithmetic of the network.
    """
    weights = sum(weight.nbytes for weight in model.parameters()) * STATES_PER_WEIGHT
    room = memory_bytes(next(model.parameters()).device) * USABLE_SHARE - weights
    per_image = STEP_FACTOR * saved_bytes(model, objective, precision)
    batch = 1
    while batch < LARGEST_BATCH and 2 * batch * per_image <= room:
        batch *= 2
    return batch


def saved_bytes(model: VAE, objective: Objective, precision: str) -> int:
    """Return the bytes of activations per image that a step saves for its backward pass."""
    device = next(model.parameters()).device
    with torch.no_grad(), autocast(device, precision):
        # The first use of the convolutions in a process tries their kernels, which also saves.
        model.encoder(torch.zeros(1, 1, model.image_size, model.image_size, device=device))
    two, one = (_saved_bytes(model, objective, precision, num_images) for num_images in (2, 1))
    return two - one  # without what does not grow with the batch, such as weights in bfloat16


def _saved_bytes(model: VAE, objective: Objective, precision: str, num_images: int) -> int:
    device = next(model.parameters()).device
    seen: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    image = torch.zeros(num_images, 1, model.image_size, model.image_size, device=device)
    noise = torch.zeros(num_images, model.latent_dim, device=device)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        with autocast(device, precision):
            output = model(image, noise)
        objective.loss(objective.measure(output, image), objective.weights(0))
    return sum(seen.values())


def memory_bytes(device: torch.device) -> int:
    """Return how much memory a device has, a container's limit taken into account."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return usable_memory_bytes()
