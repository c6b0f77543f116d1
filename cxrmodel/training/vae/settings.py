"""Settings of the autoencoder with what the machine decides filled in."""

from __future__ import annotations

import logging
import math
from typing import Literal

import torch

from cxrmodel.config import VAEConfig
from cxrmodel.training.vae.memory import largest_batch
from cxrmodel.training.vae.state import initial_vae

logger = logging.getLogger(__name__)


class ResolvedVAEConfig(VAEConfig):
    """The settings a training runs with: nothing in them is `auto`."""

    batch_size: int
    precision: Literal["float32", "bfloat16"]

    def steps_per_epoch(self, num_images: int) -> int:
        """Return the number of batches that so many train images make."""
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

    A batch of n images that was asked for as `auto` multiplies the learning rate by the square
    root of n, as the variance of a step's gradient asks of Adam: Malladi et al., On the SDEs and
    Scaling Rules for Adaptive Gradient Algorithms, 2022, arXiv:2205.10287. A number is left alone.

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
        images = batch_size or num_processes * largest_batch(
            initial_vae(config, image_size, device), precision
        )
        lr = config.lr * math.sqrt(images)
        logger.info("vae.batch_size is auto: %d images per step, at a rate of %.3g", images, lr)
        resolved.update(batch_size=images, lr=lr)
    return ResolvedVAEConfig(**{**config.model_dump(), **resolved})
