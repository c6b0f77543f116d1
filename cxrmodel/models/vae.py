"""The convolutional variational autoencoder, without skip connections.

Kingma & Welling, Auto-Encoding Variational Bayes, 2014, arXiv:1312.6114.
Shapes: B batch, C channels, S image side in pixels, Z latent dimensions.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cxrmodel.models.convolutions import NEGATIVE_SLOPE, Convolutions, doubling, halving

CHANNELS = (1, 16, 32, 64, 128, 256, 256)
LOGVAR_RANGE = (-10.0, 10.0)
NUM_GROUPS, MIN_NORM_CHANNELS = (
    8,
    64,
)  # with fewer channels, and more pixels, it is slow


class VAEOutput(NamedTuple):
    """The result of one pass through the autoencoder.

    Attributes:
        reconstruction: (B, 1, S, S), float32 in [0, 1].
        mu: Mean of q(z | x), (B, Z), float32.
        logvar: Log-variance of q(z | x), (B, Z), float32 in `LOGVAR_RANGE`.
    """

    reconstruction: Tensor
    mu: Tensor
    logvar: Tensor


class Encoder(nn.Module):
    """Image to the moments of q(z | x); six convolutions, each halving the side."""

    def __init__(
        self, image_size: int, latent_dim: int, group_norm: bool, checkpointing: bool
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for num_in, num_out in pairwise(CHANNELS):
            blocks += [
                halving(num_in, num_out),
                *_norm(num_out, group_norm),
                nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
            ]
        self.blocks = Convolutions(*blocks, gradient_checkpointing=checkpointing)
        num_features = CHANNELS[-1] * _last_side(image_size) ** 2
        self.to_mu = nn.Linear(num_features, latent_dim)
        self.to_logvar = nn.Linear(num_features, latent_dim)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Args:
            image: (B, 1, S, S), float32 in [0, 1].

        Returns:
            Mean and log-variance of q(z | x), each (B, Z), float32 under autocast too.
        """
        features = self.blocks(image)  # (B, C, S / 64, S / 64)
        flat = features.flatten(start_dim=1)  # (B, C * (S / 64) ** 2)
        return self.to_mu(flat).float(), self.to_logvar(flat).float().clamp(*LOGVAR_RANGE)


class Decoder(nn.Module):
    """Latent vector to an image; the encoder mirrored, with a sigmoid at its end."""

    def __init__(
        self,
        image_size: int,
        latent_dim: int,
        group_norm: bool,
        output_bias: bool,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        side = _last_side(image_size)
        self.from_latent = nn.Linear(latent_dim, CHANNELS[-1] * side**2)
        self.unflatten = nn.Unflatten(1, (CHANNELS[-1], side, side))
        blocks: list[nn.Module] = []
        for num_in, num_out in pairwise(reversed(CHANNELS)):
            blocks += [
                doubling(num_in, num_out),
                *_norm(num_out, group_norm),
                nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
            ]
        del blocks[-1]  # the last activation is the sigmoid
        self.blocks = Convolutions(*blocks, gradient_checkpointing=checkpointing)
        shape = (1, 1, image_size, image_size)
        self.output_bias = nn.Parameter(torch.zeros(shape)) if output_bias else None

    def forward(self, latent: Tensor) -> Tensor:
        """Decode a batch.

        Args:
            latent: (B, Z), float32.

        Returns:
            (B, 1, S, S), float32 in [0, 1], under autocast too.
        """
        features = self.unflatten(self.from_latent(latent))  # (B, C, S / 64, S / 64)
        logits: Tensor = self.blocks(features).float()  # (B, 1, S, S)
        if self.output_bias is not None:
            logits = logits + self.output_bias
        return logits.sigmoid()


class VAE(nn.Module):
    """Encoder, sampling and decoder.

    Args:
        image_size: Side of the square images in pixels, a multiple of 64.
        latent_dim: Dimensions of the latent vector z.
        group_norm: Normalise the output of convolutions of 64 channels or more, in 8 groups: Wu &
            He, Group Normalization, 2018, arXiv:1803.08494. Unlike batch norm it sees one image
            only.
        output_bias: Add a bias per pixel before the sigmoid; zero, unless set by `center_on`.
        gradient_checkpointing: Keep the activations between pairs of convolutions only, and
            compute the others again in the backward pass: Chen et al., Training Deep Nets with
            Sublinear Memory Cost, 2016, arXiv:1604.06174.

    Raises:
        ValueError: `image_size` or `latent_dim` is impossible.
    """

    def __init__(
        self,
        image_size: int,
        latent_dim: int,
        *,
        group_norm: bool = False,
        output_bias: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {latent_dim}.")
        self.image_size = image_size
        self.latent_dim = latent_dim
        self.encoder = Encoder(image_size, latent_dim, group_norm, gradient_checkpointing)
        self.decoder = Decoder(
            image_size, latent_dim, group_norm, output_bias, gradient_checkpointing
        )

    def forward(self, image: Tensor, noise: Tensor) -> VAEOutput:
        """Reconstruct a batch from one sample of its posterior.

        Args:
            image: (B, 1, S, S), float32 in [0, 1].
            noise: (B, Z), float32 from N(0, I): z = mu + sigma * noise (section 2.4 of the paper).
                Zeros give the reconstruction from the posterior mean.

        Returns:
            Reconstruction and posterior.
        """
        mu, logvar = self.encoder(image)
        latent = mu + (0.5 * logvar).exp() * noise
        return VAEOutput(self.decoder(latent), mu, logvar)


@torch.no_grad()
def center_on(model: VAE, image: Tensor) -> None:
    """Make a network with an output bias decode to nearly one image at first.

    Args:
        model: With `output_bias`.
        image: (S, S), float32 in [0, 1]; pixels are kept half a grey level away from 0 and 1, where
            the logit is infinite.
    """
    half_level = 0.5 / 255
    bias = model.decoder.output_bias
    if bias is None:
        raise ValueError("The network has no output bias: build it with output_bias=True.")
    bias.copy_(image.logit(half_level))


def _norm(num_channels: int, group_norm: bool) -> list[nn.Module]:
    has_norm = group_norm and num_channels >= MIN_NORM_CHANNELS
    return [nn.GroupNorm(NUM_GROUPS, num_channels)] if has_norm else []


def _last_side(image_size: int) -> int:
    factor: int = 2 ** (len(CHANNELS) - 1)
    if image_size < factor or image_size % factor:
        raise ValueError(f"image_size must be a positive multiple of {factor}, got {image_size}.")
    return image_size // factor
