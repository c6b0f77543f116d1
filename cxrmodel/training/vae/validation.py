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
from cxrmodel.training.checkpoints import EpochRecord
from cxrmodel.training.image_batches import in_batches
from cxrmodel.training.vae.auto_settings import ResolvedVAEConfig
from cxrmodel.training.vae.objective import Objective, loss_of_means
from cxrmodel.training.vae.world import World

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

KL_BY_DIMENSION = "val_kl_nats_by_dim"
MEASURED_PER_IMAGE = ("l1", "kl_nats")  # whatever the objective is

Reconstruct = Callable[[NDArray[np.uint8]], tuple[Tensor, VAEOutput]]


def validate(
    reconstruct: Reconstruct,
    config: ResolvedVAEConfig,
    objective: Objective,
    weights: dict[str, float],
    pixels: Pixels,
    rows: NDArray[np.int64],
    world: World,
    after_batch: Callable[[], None],
) -> EpochRecord:
    """Measure the loss, its terms, and the activity of the latent dimensions, without randomness.

    The latent is the posterior mean, so the L1 is that of the reconstructions in the report, a
    little below what the train loss, which samples, would be.

    Args:
        reconstruct: The network; it is left as it is.
        config: Batch size and latent dimensions.
        objective: What the network is trained for.
        weights: Those of the objective's loss at this step.
        pixels: Where the images are.
        rows: (M,), the validation images; if there is none, every metric is None.
        world: The processes that share the work; all of them get all metrics.
        after_batch: Called after each batch.

    Returns:
        `val_l1`, `val_kl_nats` (summed over dimensions), `val_kl_nats_per_dim` (their mean),
        `val_kl_nats_by_dim` (a list of them), other terms of the objective, `val_loss`, each a mean
        over images; `posterior_variance`, a mean over dimensions too; the number of `active_units`.
    """
    others = [name for name in objective.terms if name not in MEASURED_PER_IMAGE]
    measured = [torch.empty(0, len(MEASURED_PER_IMAGE) + len(others) + 2 * config.latent_dim)]
    own = in_batches(world.part(rows), config.batch_size)
    with torch.inference_mode(), closing(iterate_batches(pixels, own)) as batches:
        for _, images in batches:
            image, output = reconstruct(images)
            terms = objective.measure(output, image) if others else {}
            measured.append(_measure(image, output, [terms[name] for name in others]).cpu())
            after_batch()
    if not len(rows):
        return dict.fromkeys(_names(others))
    return _metrics(world.gathered(torch.cat(measured)), others, objective, weights)


def _names(others: list[str]) -> list[str]:
    return [
        *("val_l1", "val_kl_nats", "val_kl_nats_per_dim", KL_BY_DIMENSION),
        *(f"val_{name}" for name in others),
        *("val_loss", "posterior_variance", "active_units"),
    ]


def _measure(image: Tensor, output: VAEOutput, others: list[Tensor]) -> Tensor:
    """Return (B, 2 + T + 2 Z): L1, variance, T terms of the batch, KL and mean by dimension."""
    l1 = (output.reconstruction - image).abs().mean(dim=(1, 2, 3))
    variance = output.logvar.exp().mean(dim=1)
    columns = [l1, variance, *(term.expand(len(image)) for term in others)]
    kl = kl_by_dimension(output.mu, output.logvar)
    return torch.cat([torch.stack(columns, dim=1), kl, output.mu], dim=1)


def _metrics(
    values: Tensor, others: list[str], objective: Objective, weights: dict[str, float]
) -> EpochRecord:
    num_columns = len(MEASURED_PER_IMAGE) + len(others)
    num_dims = (values.shape[1] - num_columns) // 2
    l1, variance, *rest = values[:, : num_columns + num_dims].double().mean(dim=0).tolist()
    terms, by_dim = rest[: len(others)], rest[len(others) :]
    kl = sum(by_dim)
    means = {"l1": l1, "kl_nats": kl, **dict(zip(others, terms, strict=True))}
    loss = loss_of_means(objective, means, weights)
    active = num_active_units(values[:, num_columns + num_dims :])
    metrics = (l1, kl, kl / num_dims, by_dim, *terms, loss, variance, active)
    return dict(zip(_names(others), metrics, strict=True))
