"""The default objective: mean absolute error plus a weighted KL divergence."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from cxrmodel.config import VAEConfig
from cxrmodel.models.posterior import kl_by_dimension
from cxrmodel.models.vae import VAEOutput


class L1KL:
    """L1 plus `kl_weight` times the KL per latent dimension.

    Kingma & Welling, Auto-Encoding Variational Bayes, 2014, arXiv:1312.6114, with a Laplace instead
    of a Gaussian likelihood. See `Objective` for what the methods are for.

    Terms:
        l1: Mean absolute error per pixel, on the [0, 1] scale.
        kl_nats: KL(q(z | x) || N(0, I)) in nats, summed over the latent dimensions.
    """

    terms: tuple[str, ...] = ("l1", "kl_nats")

    def __init__(self, config: VAEConfig) -> None:
        self.kl_weight, self.latent_dim = config.kl_weight, config.latent_dim

    def measure(self, output: VAEOutput, image: Tensor) -> dict[str, Tensor]:
        """Return the mean terms of a batch."""
        # As a sum: the gradient of a mean takes another pass over all pixels.
        l1 = nn.functional.l1_loss(output.reconstruction, image, reduction="sum") / image.numel()
        kl_per_dim = kl_by_dimension(output.mu, output.logvar).mean()
        return {"l1": l1, "kl_nats": kl_per_dim * self.latent_dim}

    def weights(self, step: int) -> dict[str, float]:
        """Return the weight of the KL, the same at each step."""
        return {"kl_weight": self.kl_weight}

    def loss(self, terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
        """Add the terms up."""
        return terms["l1"] + weights["kl_weight"] * (terms["kl_nats"] / self.latent_dim)
