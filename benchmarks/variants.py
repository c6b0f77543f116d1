"""Ways to train that were tried and left out: other objectives, averaged weights."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import torch
from torch import Tensor

from cxrmodel.models import similarity
from cxrmodel.models.posterior import kl_by_dimension
from cxrmodel.models.vae import VAELoss, VAEOutput, vae_loss
from cxrmodel.training.vae import fit, step
from cxrmodel.training.vae.step import VAESteps

Objective = Callable[[VAEOutput, Tensor, float], VAELoss]

FREE_NATS = 0.5  # a dimension
WARM_UP_STEPS = 288  # a fifth of 40 epochs of 283 films, 8 a step
SIMILARITY_WEIGHT, DIFFERENCES_WEIGHT = 0.1, 1.0
DECAY = 0.995  # of the average: of some 200 steps


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
    similarity._band_matrix.cache_clear()  # of inference mode, which no gradient goes through
    differentiable = similarity.structural_similarity.__wrapped__
    ms_ssim = differentiable(output.reconstruction, image).ms_ssim.mean()
    return plain._replace(loss=plain.loss + SIMILARITY_WEIGHT * (1 - ms_ssim))


def with_differences(output: VAEOutput, image: Tensor, kl_weight: float) -> VAELoss:
    """Add the L1 of the differences between neighbouring pixels."""
    plain = vae_loss(output, image, kl_weight)
    error = output.reconstruction - image
    differences = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return plain._replace(loss=plain.loss + DIFFERENCES_WEIGHT * differences)


class KLWarmUp:
    """Raise the weight of the KL from zero within a fifth of the steps."""

    def __init__(self) -> None:
        self._steps = count()

    def __call__(self, output: VAEOutput, image: Tensor, kl_weight: float) -> VAELoss:
        """See `vae_loss`."""
        return vae_loss(output, image, kl_weight * min(1.0, next(self._steps) / WARM_UP_STEPS))


class AveragedSteps(VAESteps):
    """End with an exponential moving average of the weights: Polyak & Juditsky, 1992."""

    def _update_weights(self, means: Tensor, num_images: int) -> None:
        super()._update_weights(means, num_images)
        weights = [weight.detach() for weight in self.model.parameters()]
        if self.state.step == 1:
            self._averages = [weight.clone() for weight in weights]
        torch._foreach_lerp_(self._averages, weights, 1 - DECAY)
        if self.state.step == self._num_steps:
            torch._foreach_copy_(weights, self._averages)


OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "free bits, 0.5 nats": lambda: free_bits,
    "Laplace scale": lambda: laplace_scale,
    "plus MS-SSIM": lambda: with_similarity,
    "plus gradients": lambda: with_differences,
    "KL warm-up": KLWarmUp,
}
AVERAGED = "averaged weights"
VARIANTS = (*OBJECTIVES, AVERAGED)


@contextmanager
def in_place(name: str) -> Iterator[None]:
    """Train by the variant of that name for a while; any other name is the product itself."""
    if name not in VARIANTS:
        yield
        return
    place, what, made = (
        (fit, "VAESteps", AveragedSteps)
        if name == AVERAGED
        else (step, "vae_loss", OBJECTIVES[name]())
    )
    before = getattr(place, what)
    setattr(place, what, made)
    try:
        yield
    finally:
        setattr(place, what, before)


def fingerprint(name: str, settings: str) -> str:
    """Return the fingerprint of settings; for a variant, with its code in it."""
    if name not in VARIANTS:
        return settings
    made = AveragedSteps if name == AVERAGED else OBJECTIVES[name]()
    source = inspect.getsource(type(made) if isinstance(made, KLWarmUp) else made)
    return hashlib.sha256(f"{settings} {source}".encode()).hexdigest()
