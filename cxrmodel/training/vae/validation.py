"""How good the autoencoder is on images it does not train on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrmodel.data.images.batches import iterate_batches
from cxrmodel.models.posterior import kl_by_dimension, num_active_units
from cxrmodel.models.vae import VAEOutput
from cxrmodel.training.batches import in_batches
from cxrmodel.training.checkpoints import EpochRecord
from cxrmodel.training.vae.settings import ResolvedVAEConfig
from cxrmodel.training.vae.step import VAESteps
from cxrmodel.training.vae.world import World

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

PER_IMAGE = ("l1", "posterior_variance")  # before the KL and the mean of each dimension
KL_BY_DIMENSION = "val_kl_nats_by_dim"
METRICS = (
    "val_l1",
    "val_kl_nats",
    "val_kl_nats_per_dim",
    KL_BY_DIMENSION,
    "val_loss",
    "posterior_variance",
    "active_units",
)


def validate(
    steps: VAESteps,
    pixels: Pixels,
    rows: NDArray[np.int64],
    config: ResolvedVAEConfig,
    world: World,
    after_batch: Callable[[], None],
) -> EpochRecord:
    """Measure loss and activity of the latent dimensions, without randomness.

    The latent is the posterior mean, so the L1 is that of the reconstructions in the report, a
    little below what the train loss, which samples, would be.

    Args:
        steps: The network; left as it is.
        pixels: Where the images are.
        rows: (M,), the validation images; of none every metric is None.
        config: Batch size and weight of the KL.
        world: The processes that share the work; all of them get all metrics.
        after_batch: Called after each batch.

    Returns:
        `val_l1`, `val_kl_nats` (summed over dimensions), `val_kl_nats_per_dim` (their mean),
        `val_kl_nats_by_dim` (a list of them), `val_loss`, each a mean over images,
        `posterior_variance`, a mean over dimensions too, and the number of `active_units`.
    """
    values = [torch.empty(0, len(PER_IMAGE) + 2 * config.latent_dim)]
    own = world.part(rows)
    with (
        torch.inference_mode(),
        closing(iterate_batches(pixels, in_batches(own, config.batch_size))) as batches,
    ):
        for _, images in batches:
            values.append(_measure(*steps.reconstruct(images)).cpu())
            after_batch()
    if not len(rows):
        return dict.fromkeys(METRICS)
    return _metrics(world.gathered(torch.cat(values)), config.kl_weight)


def _measure(image: Tensor, output: VAEOutput) -> Tensor:
    l1 = (output.reconstruction - image).abs().mean(dim=(1, 2, 3))
    variance = output.logvar.exp().mean(dim=1)
    kl = kl_by_dimension(output.mu, output.logvar)
    return torch.cat([torch.stack([l1, variance], dim=1), kl, output.mu], dim=1)


def _metrics(values: Tensor, kl_weight: float) -> EpochRecord:
    num, num_dims = len(PER_IMAGE), (values.shape[1] - len(PER_IMAGE)) // 2
    l1, variance, *by_dim = values[:, : num + num_dims].double().mean(dim=0).tolist()
    kl = sum(by_dim)
    per_dim = kl / num_dims
    active = num_active_units(values[:, num + num_dims :])
    metrics = (l1, kl, per_dim, by_dim, l1 + kl_weight * per_dim, variance, active)
    return dict(zip(METRICS, metrics, strict=True))
