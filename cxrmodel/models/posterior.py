"""Measures of the posterior q(z | x) of an image, and of the posterior over all images.

Shapes: B images, Z latent dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

ACTIVE_VARIANCE = 0.01


def kl_by_dimension(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z | x) || N(0, I)) of a diagonal Gaussian in nats.

    Source: Kingma & Welling, Auto-Encoding Variational Bayes, 2014, arXiv:1312.6114, appendix B.

    Args:
        mu: (B, Z).
        logvar: (B, Z).

    Returns:
        (B, Z).
    """
    return 0.5 * (mu.square() + logvar.exp() - 1.0 - logvar)


def num_active_units(mu: Tensor) -> int:
    """Count the latent dimensions that depend on the image.

    A unit is active where the variance over images of its posterior mean is above 0.01: Burda et
    al., Importance Weighted Autoencoders, 2016, arXiv:1509.00519, section 5.2.

    Args:
        mu: (N, Z), posterior means of N images.
    """
    variance = mu.cpu().double().var(dim=0, correction=0)
    return int((variance > ACTIVE_VARIANCE).sum())


@dataclass(frozen=True)
class AggregatePosterior:
    """The Gaussian of the same mean and covariance as the mixture of q(z | x) over images.

    Where it is far from the prior N(0, I), latents drawn from the prior resemble those of no image.
    Its KL from the prior is at most that of the mixture, for which see M. Hoffman, M. Johnson, ELBO
    surgery, NIPS workshop 2016.

    Attributes:
        mean: (Z,), float64.
        covariance: (Z, Z), float64.
        mu_std: (Z,), standard deviation over images of the posterior mean alone.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    mu_std: NDArray[np.float64]

    @classmethod
    def fit(cls, mu: NDArray[np.float64], logvar: NDArray[np.float64]) -> Self:
        """Return the posterior over at least one image, from (B, Z) means and log-variances."""
        mean = mu.mean(axis=0)
        between = (mu - mean).T @ (mu - mean) / len(mu)
        within = np.diag(np.exp(logvar).mean(axis=0))
        return cls(mean, between + within, np.sqrt(np.diag(between)))

    def kl_to_prior(self) -> float:
        """Return KL(N(mean, covariance) || N(0, I)) in nats, over all dimensions together."""
        _, log_determinant = np.linalg.slogdet(self.covariance)
        squares = np.trace(self.covariance) + self.mean @ self.mean
        return float(0.5 * (squares - len(self.mean) - log_determinant))

    def kl_by_dimension(self) -> NDArray[np.float64]:
        """Return the KL of each dimension alone, (Z,); their sum is at most the KL of all."""
        variance = np.diag(self.covariance)
        found: NDArray[np.float64] = 0.5 * (variance + self.mean**2 - 1 - np.log(variance))
        return found

    def sample(self, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw (count, Z) latents."""
        noise = rng.normal(size=(count, len(self.mean)))
        found: NDArray[np.float64] = self.mean + noise @ np.linalg.cholesky(self.covariance).T
        return found
