"""The convolutional variational autoencoder, without skip connections and normalisation layers.

Kingma & Welling, Auto-Encoding Variational Bayes, 2014, arXiv:1312.6114.
Shapes: B batch, C channels, S image side in pixels, Z latent dimensions.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cxrmodel.config import NUM_DOWNSAMPLINGS

CHANNELS = (1, 16, 32, 64, 128, 256, 256)
KERNEL_SIZE, STRIDE, PADDING = 4, 2, 1  # each convolution halves the side, or doubles it
LOGVAR_RANGE = (-10.0, 10.0)
NEGATIVE_SLOPE = 0.2


class VAEOutput(NamedTuple):
    """What one pass through the autoencoder gives.

    Attributes:
        reconstruction: (B, 1, S, S), float32 in [0, 1].
        mu: Mean of q(z | x), (B, Z), float32.
        logvar: Log-variance of q(z | x), (B, Z), float32 in `LOGVAR_RANGE`.
    """

    reconstruction: Tensor
    mu: Tensor
    logvar: Tensor


class VAELoss(NamedTuple):
    """The objective and its two terms, float32 scalars, each a mean over the batch.

    Attributes:
        loss: `l1 + kl_weight * kl_per_dim`.
        l1: Mean absolute error a pixel, on the [0, 1] scale.
        kl_per_dim: KL(q(z | x) || N(0, I)) in nats, averaged over the latent dimensions.
    """

    loss: Tensor
    l1: Tensor
    kl_per_dim: Tensor


class Encoder(nn.Module):
    """Image to the moments of q(z | x); six convolutions, each halving the side."""

    def __init__(self, image_size: int, latent_dim: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for num_in, num_out in pairwise(CHANNELS):
            blocks += [
                nn.Conv2d(num_in, num_out, KERNEL_SIZE, STRIDE, PADDING),
                nn.LeakyReLU(NEGATIVE_SLOPE),
            ]
        self.blocks = nn.Sequential(*blocks)
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


class _TransposedConvolution(torch.autograd.Function):
    """Transposed convolution (kernel 4, stride 2, padding 1) with its bias gradient as a sum.

    oneDNN takes up to five times as long for the gradient of a transposed convolution's bias as
    for that of its weights: a fifth of a training step at 1024 px.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Apply it: (B, C, H, W) to (B, C', 2H, 2W)."""
        ctx.save_for_backward(features, weight)
        return nn.functional.conv_transpose2d(features, weight, bias, STRIDE, PADDING)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of features, weight and bias."""
        (gradient,) = gradients
        features, weight = ctx.saved_tensors
        of_features, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient,
            features.to(gradient.dtype),
            weight.to(gradient.dtype),
            None,  # the sizes of a bias whose gradient it would compute
            [STRIDE, STRIDE],
            [PADDING, PADDING],
            [1, 1],  # dilation
            True,  # transposed
            [0, 0],  # output padding
            1,  # groups
            [True, True, False],  # which of the three gradients to compute
        )
        return of_features, of_weight, gradient.sum(dim=(0, 2, 3))


class TransposedConv2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d(num_in, num_out, 4, 2, 1)`, faster to train on a CPU."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__(num_in, num_out, KERNEL_SIZE, STRIDE, PADDING)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Double the side: (B, C, H, W) to (B, C', 2H, 2W)."""
        if input.device.type == "cpu" and torch.is_grad_enabled() and self.bias is not None:
            doubled: Tensor = _TransposedConvolution.apply(  # type: ignore[no-untyped-call]
                input, self.weight, self.bias
            )
            return doubled
        return super().forward(input, output_size)


class Decoder(nn.Module):
    """Latent vector to an image; the encoder mirrored, with a sigmoid at its end."""

    def __init__(self, image_size: int, latent_dim: int) -> None:
        super().__init__()
        side = _last_side(image_size)
        self.from_latent = nn.Linear(latent_dim, CHANNELS[-1] * side**2)
        self.unflatten = nn.Unflatten(1, (CHANNELS[-1], side, side))
        blocks: list[nn.Module] = []
        for num_in, num_out in pairwise(reversed(CHANNELS)):
            blocks += [
                TransposedConv2d(num_in, num_out),
                nn.LeakyReLU(NEGATIVE_SLOPE),
            ]
        self.blocks = nn.Sequential(*blocks[:-1])  # the last activation is the sigmoid

    def forward(self, latent: Tensor) -> Tensor:
        """Decode a batch.

        Args:
            latent: (B, Z), float32.

        Returns:
            (B, 1, S, S), float32 in [0, 1], under autocast too.
        """
        features = self.unflatten(self.from_latent(latent))  # (B, C, S / 64, S / 64)
        logits: Tensor = self.blocks(features)  # (B, 1, S, S)
        return logits.float().sigmoid()


class VAE(nn.Module):
    """Encoder, sampling and decoder.

    Args:
        image_size: Side of the square images in pixels, a multiple of 64.
        latent_dim: Dimensions of the latent vector z.

    Raises:
        ValueError: `image_size` or `latent_dim` is impossible.
    """

    def __init__(self, image_size: int, latent_dim: int) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {latent_dim}.")
        self.image_size = image_size
        self.latent_dim = latent_dim
        self.encoder = Encoder(image_size, latent_dim)
        self.decoder = Decoder(image_size, latent_dim)

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


def kl_by_dimension(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z | x) || N(0, I)) of a diagonal Gaussian (appendix B of the paper), in nats.

    Args:
        mu: (B, Z), float32.
        logvar: (B, Z), float32.

    Returns:
        (B, Z).
    """
    return 0.5 * (mu.square() + logvar.exp() - 1.0 - logvar)


def vae_loss(output: VAEOutput, image: Tensor, kl_weight: float) -> VAELoss:
    """Mean L1 plus the weighted KL, averaged over latent dimensions and batch.

    Args:
        output: What the autoencoder made of the batch.
        image: (B, 1, S, S), float32 in [0, 1].
        kl_weight: Weight of the KL a dimension.
    """
    l1 = nn.functional.l1_loss(output.reconstruction, image)
    kl_per_dim = kl_by_dimension(output.mu, output.logvar).mean()
    return VAELoss(l1 + kl_weight * kl_per_dim, l1, kl_per_dim)


def _last_side(image_size: int) -> int:
    factor: int = 2**NUM_DOWNSAMPLINGS
    if image_size < factor or image_size % factor:
        raise ValueError(f"image_size must be a positive multiple of {factor}, got {image_size}.")
    return image_size // factor
