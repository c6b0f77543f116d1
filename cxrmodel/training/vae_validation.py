"""How good the autoencoder is on images it does not train on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrmodel.data.batches import iterate_batches
from cxrmodel.models.vae import kl_per_image
from cxrmodel.training.batches import in_batches
from cxrmodel.training.vae_settings import ResolvedVAEConfig
from cxrmodel.training.vae_steps import VAESteps

if TYPE_CHECKING:
    from cxrmodel.data.pixels import Pixels

ACTIVE_VARIANCE = 0.01
METRICS = (
    "val_l1",
    "val_kl_nats",
    "val_kl_nats_per_dim",
    "val_loss",
    "posterior_variance",
    "active_units",
)


def validate(
    steps: VAESteps,
    pixels: Pixels,
    rows: NDArray[np.int64],
    config: ResolvedVAEConfig,
    after_batch: Callable[[], None],
) -> dict[str, float | None]:
    """Measure loss and activity of the latent dimensions, without randomness.

    The latent is the posterior mean, so the L1 is that of the reconstructions in the report, a
    little below what the train loss, which samples, would be.

    Args:
        steps: The network; left as it is.
        pixels: Where the images are.
        rows: (M,), the validation images; of none every metric is None.
        config: Batch size and weight of the KL.
        after_batch: Called after each batch.

    Returns:
        `val_l1`, `val_kl_nats` (summed over dimensions), `val_kl_nats_per_dim`, `val_loss`,
        each a mean over images, `posterior_variance`, a mean over dimensions too, and the number
        of `active_units`.
    """
    l1, kl, mu, variance = [], [], [], []
    with (
        torch.inference_mode(),
        closing(iterate_batches(pixels, in_batches(rows, config.batch_size))) as batches,
    ):
        for _, images in batches:
            image, output = steps.reconstruct(images)
            l1.append((output.reconstruction - image).abs().mean(dim=(1, 2, 3)))
            kl.append(kl_per_image(output.mu, output.logvar))
            mu.append(output.mu)
            variance.append(output.logvar.exp().mean(dim=1))
            after_batch()
    if not mu:
        return dict.fromkeys(METRICS)
    means = (float(torch.cat(values).cpu().double().mean()) for values in (l1, kl, variance))
    mean_l1, mean_kl, mean_variance = means
    per_dim = mean_kl / config.latent_dim
    loss = mean_l1 + config.kl_weight * per_dim
    units = num_active_units(torch.cat(mu))
    return dict(zip(METRICS, (mean_l1, mean_kl, per_dim, loss, mean_variance, units), strict=True))


def num_active_units(mu: Tensor) -> int:
    """Count the latent dimensions that depend on the image.

    A unit is active where the variance over images of its posterior mean is above 0.01: Burda et
    al., Importance Weighted Autoencoders, 2016, arXiv:1509.00519, section 5.2.

    Args:
        mu: (N, Z), posterior means of N images.
    """
    variance = mu.cpu().double().var(dim=0, correction=0)
    return int((variance > ACTIVE_VARIANCE).sum())
