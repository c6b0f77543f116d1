"""Objectives that were tried in place of `vae_loss`; the product has none of them."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from torch import Tensor, nn
from torchmetrics.functional import (
    multiscale_structural_similarity_index_measure as ms_ssim_of,
)

from cxrmodel.models.posterior import kl_by_dimension
from cxrmodel.models.vae import VAELoss, VAEOutput, vae_loss
from cxrmodel.training import vae_steps

Objective = Callable[[VAEOutput, Tensor, float], VAELoss]

FREE_NATS = 0.5  # a dimension
WARM_UP_STEPS = 288  # a fifth of 40 epochs of 283 films, 8 a step
SIMILARITY_WEIGHT, DIFFERENCES_WEIGHT = 0.1, 1.0
POOLED_PX = (4, 16)


def free_bits(output: VAEOutput, image: Tensor, kl_weight: float) -> VAELoss:
    """Leave the first half nat of each dimension free: Kingma et al., 2016, arXiv:1606.04934."""
    plain = vae_loss(output, image, kl_weight)
    kl = kl_by_dimension(output.mu, output.logvar).mean(dim=0).clamp(min=FREE_NATS).mean()
    return plain._replace(loss=plain.l1 + kl_weight * kl)


def laplace_scale(output: VAEOutput, image: Tensor, _: float) -> VAELoss:
    """Take the ELBO of a Laplace of the best scale: Rybkin et al., 2021, arXiv:2006.13202."""
    plain = vae_loss(output, image, 0.0)
    latent_dim, num_pixels = output.mu.shape[1], image[0].numel()
    return plain._replace(loss=plain.l1.log() + latent_dim / num_pixels * plain.kl_per_dim)


def with_similarity(output: VAEOutput, image: Tensor, kl_weight: float) -> VAELoss:
    """Add 0.1 times 1 - MS-SSIM."""
    plain = vae_loss(output, image, kl_weight)
    # Its terms are scaled to [0, 1]: the power of a negative one has no gradient.
    ms_ssim = ms_ssim_of(output.reconstruction, image, data_range=1.0, normalize="simple")
    return plain._replace(loss=plain.loss + SIMILARITY_WEIGHT * (1 - ms_ssim))


def with_differences(output: VAEOutput, image: Tensor, kl_weight: float) -> VAELoss:
    """Add the L1 of the differences between neighbouring pixels."""
    plain = vae_loss(output, image, kl_weight)
    error = output.reconstruction - image
    differences = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return plain._replace(loss=plain.loss + DIFFERENCES_WEIGHT * differences)


def with_scales(output: VAEOutput, image: Tensor, kl_weight: float) -> VAELoss:
    """Add the L1 of images made 4 and 16 times smaller."""
    plain = vae_loss(output, image, kl_weight)
    error = output.reconstruction - image
    pooled = sum(nn.functional.avg_pool2d(error, px).abs().mean() for px in POOLED_PX)
    return plain._replace(loss=plain.loss + pooled)


class KLWarmUp:
    """Raise the weight of the KL from zero within a fifth of the steps."""

    def __init__(self) -> None:
        self._steps = count()

    def __call__(self, output: VAEOutput, image: Tensor, kl_weight: float) -> VAELoss:
        """See `vae_loss`."""
        return vae_loss(output, image, kl_weight * min(1.0, next(self._steps) / WARM_UP_STEPS))


OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "free bits, 0.5 nats": lambda: free_bits,
    "Laplace scale": lambda: laplace_scale,
    "plus MS-SSIM": lambda: with_similarity,
    "plus gradients": lambda: with_differences,
    "plus coarser scales": lambda: with_scales,
    "KL warm-up": KLWarmUp,
}


@contextmanager
def in_place(name: str) -> Iterator[None]:
    """Train with the objective of that name for a while; any other name is the product's own."""
    if name not in OBJECTIVES:
        yield
        return
    before = vae_steps.vae_loss
    vae_steps.vae_loss = OBJECTIVES[name]()  # type: ignore[assignment]
    try:
        yield
    finally:
        vae_steps.vae_loss = before


def fingerprint(name: str, settings: str) -> str:
    """Return the fingerprint of settings; for an objective of this module, with its code in it."""
    if name not in OBJECTIVES:
        return settings
    made = OBJECTIVES[name]()
    source = inspect.getsource(type(made) if isinstance(made, KLWarmUp) else made)
    return hashlib.sha256(f"{settings} {source}".encode()).hexdigest()
