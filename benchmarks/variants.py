"""Ways to train that were tried and left out: other objectives, and averaged weights."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cxrmodel.models.posterior import kl_by_dimension
from cxrmodel.models.similarity import structural_similarity
from cxrmodel.models.vae import VAEOutput
from cxrmodel.training.vae.l1_kl import L1KL

FREE_NATS = 0.5  # per dimension
WARM_UP_STEPS = 288  # a fifth of 40 epochs of 283 images, 8 per step
SIMILARITY_WEIGHT, DIFFERENCES_WEIGHT = 0.1, 1.0
DECAY = 0.995  # of the average: over some 200 steps


class FreeBits(L1KL):
    """Leave the first half nat of each dimension free: Kingma et al., 2016, arXiv:1606.04934."""

    terms = (*L1KL.terms, "charged_kl_nats")

    def measure(self, output: VAEOutput, image: Tensor) -> dict[str, Tensor]:
        """Also measure the KL with at least half a nat in each dimension."""
        kl = kl_by_dimension(output.mu, output.logvar).mean(dim=0).clamp(min=FREE_NATS).mean()
        return {**super().measure(output, image), "charged_kl_nats": kl * self.latent_dim}

    def loss(self, terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
        """Add it to the L1 in place of the KL."""
        return super().loss({**terms, "kl_nats": terms["charged_kl_nats"]}, weights)


class LaplaceScale(L1KL):
    """Take the ELBO of a Laplace of the best scale: Rybkin et al., 2021, arXiv:2006.13202."""

    terms = (*L1KL.terms, "kl_nats_per_pixel")

    def measure(self, output: VAEOutput, image: Tensor) -> dict[str, Tensor]:
        """Also measure the KL per pixel."""
        terms = super().measure(output, image)
        return {**terms, "kl_nats_per_pixel": terms["kl_nats"] / image[0].numel()}

    def weights(self, step: int) -> dict[str, float]:
        """Nothing is weighted."""
        return {}

    def loss(self, terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
        """Return the negative ELBO per pixel, without a constant."""
        return terms["l1"].log() + terms["kl_nats_per_pixel"]


class WithSimilarity(L1KL):
    """Add 0.1 times 1 - MS-SSIM."""

    terms = (*L1KL.terms, "dissimilarity")

    def measure(self, output: VAEOutput, image: Tensor) -> dict[str, Tensor]:
        """Also measure 1 - MS-SSIM."""
        similarity = structural_similarity(output.reconstruction, image).ms_ssim.mean()
        return {**super().measure(output, image), "dissimilarity": 1 - similarity}

    def loss(self, terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
        """Add it to the loss."""
        return super().loss(terms, weights) + SIMILARITY_WEIGHT * terms["dissimilarity"]


class WithDifferences(L1KL):
    """Add the L1 of the differences between neighbouring pixels."""

    terms = (*L1KL.terms, "differences")

    def measure(self, output: VAEOutput, image: Tensor) -> dict[str, Tensor]:
        """Also measure the differences."""
        error = output.reconstruction - image
        differences = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        return {**super().measure(output, image), "differences": differences}

    def loss(self, terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
        """Add them to the loss."""
        return super().loss(terms, weights) + DIFFERENCES_WEIGHT * terms["differences"]


class KLWarmUp(L1KL):
    """Raise the weight of the KL from zero within a fifth of the steps."""

    def weights(self, step: int) -> dict[str, float]:
        """Return the weight of the KL at a step."""
        return {"kl_weight": self.kl_weight * min(1.0, step / WARM_UP_STEPS)}


VARIANTS: dict[str, type[L1KL]] = {
    "free bits, 0.5 nats": FreeBits,
    "Laplace scale": LaplaceScale,
    "plus MS-SSIM": WithSimilarity,
    "plus gradients": WithDifferences,
    "KL warm-up": KLWarmUp,
}
AVERAGED = "averaged weights"


@contextmanager
def averaged_weights(num_steps: int) -> Iterator[None]:
    """End a training with an exponential moving average of its weights: Polyak & Juditsky, 1992.

    Args:
        num_steps: Steps of the training; it must be the only one meanwhile.
    """
    averages: list[Tensor] = []
    steps, average = count(1), get_ema_multi_avg_fn(DECAY)

    def update(optimizer: Any, *_: Any) -> None:
        weights = [w.detach() for group in optimizer.param_groups for w in group["params"]]
        if not averages:
            averages.extend(weight.clone() for weight in weights)
        average(averages, weights, 0)
        if next(steps) == num_steps:
            for weight, averaged in zip(weights, averages, strict=True):
                weight.copy_(averaged)

    hook = register_optimizer_step_post_hook(update)
    try:
        yield
    finally:
        hook.remove()


def fingerprint(name: str, settings: str) -> str:
    """Return the fingerprint of settings; for a variant, with its code in it."""
    code: dict[str, Callable[..., Any]] = {**VARIANTS, AVERAGED: averaged_weights}
    if name not in code:
        return settings
    return hashlib.sha256(f"{settings} {inspect.getsource(code[name])}".encode()).hexdigest()
