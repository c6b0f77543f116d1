"""What the posterior q(z | x) of an image is like; B images, Z latent dimensions."""

from __future__ import annotations

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
