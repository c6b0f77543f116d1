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
    others = [name for name in objective.terms if name not in ("l1", "kl_nats")]
    width = 2 + len(others) + 2 * config.latent_dim
    measured = [torch.empty(0, width)]
    own = in_batches(world.part(rows), config.batch_size)
    with torch.inference_mode(), closing(iterate_batches(pixels, own)) as batches:
        for _, images in batches:
            image, output = reconstruct(images)
            terms = objective.measure(output, image) if others else {}
            measured.append(_measure(image, output, [terms[name] for name in others]).cpu())
            after_batch()
    if not len(rows):
        return dict.fromkeys(_metrics(torch.zeros(1, width), others, objective, weights))
    return _metrics(world.gathered(torch.cat(measured)), others, objective, weights)


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
    num_columns = 2 + len(others)
    num_dims = (values.shape[1] - num_columns) // 2
    l1, variance, *rest = values[:, : num_columns + num_dims].double().mean(dim=0).tolist()
    terms, by_dim = dict(zip(others, rest, strict=False)), rest[len(others) :]
    kl = sum(by_dim)
    return {
        "val_l1": l1,
        "val_kl_nats": kl,
        "val_kl_nats_per_dim": kl / num_dims,
        KL_BY_DIMENSION: by_dim,
        **{f"val_{name}": value for name, value in terms.items()},
        "val_loss": loss_of_means(objective, {"l1": l1, "kl_nats": kl, **terms}, weights),
        "posterior_variance": variance,
        "active_units": num_active_units(values[:, num_columns + num_dims :]),
    }
