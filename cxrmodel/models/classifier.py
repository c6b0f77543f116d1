"""The multi-label network on the latents.

Shapes: B batch, Z latent dimensions, K pathologies.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

NUM_HIDDEN = 256


class Classifier(nn.Module):
    """Two hidden layers of ReLU units, and one logit per pathology.

    Args:
        latent_dim: Dimensions of the latent vector.
        num_labels: Number of pathologies; 0 where there is nothing to classify.

    Attributes:
        mean: (Z,), subtracted from the latents; zeros unless set by `standardize_as`.
        scale: (Z,), the divisor of the latents; ones unless set.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int, num_labels: int) -> None:
        super().__init__()
        # Buffers are stored with the weights: inference needs nothing else.
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("scale", torch.ones(latent_dim))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # of no label
            self.layers = nn.Sequential(
                nn.Linear(latent_dim, NUM_HIDDEN),
                nn.ReLU(),
                nn.Linear(NUM_HIDDEN, NUM_HIDDEN),
                nn.ReLU(),
                nn.Linear(NUM_HIDDEN, num_labels),
            )

    def standardize_as(self, latents: Tensor) -> None:
        """Make each dimension of these latents have zero mean and unit variance.

        Args:
            latents: (N, Z), float32; the train rows. A dimension that does not vary is only
                shifted.
        """
        wide = latents.double()
        deviation = wide.std(dim=0, correction=0)
        self.mean.copy_(wide.mean(dim=0))
        self.scale.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))

    @torch.no_grad()
    def scale_logits(self, slope: Tensor, intercept: Tensor) -> None:
        """Make each logit `slope * logit + intercept`, through the weights of the last layer.

        Args:
            slope: (K,).
            intercept: (K,).
        """
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)  # noqa: S101
        last.weight.mul_(slope[:, None])
        last.bias.mul_(slope).add_(intercept)

    def forward(self, latents: Tensor) -> Tensor:
        """Return logits (B, K) of latents (B, Z), float32."""
        logits: Tensor = self.layers((latents - self.mean) / self.scale)
        return logits
