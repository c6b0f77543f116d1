"""A trained autoencoder, applied to images without sampling."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrmodel.errors import DamagedArtifactError
from cxrmodel.models.vae import VAE
from cxrmodel.storage.layout import CONFIG_FILE, VAE_WEIGHTS_FILE
from cxrmodel.training.devices import autocast, keep_freed_memory, resolve_device
from cxrmodel.training.image_batches import in_batches, to_device
from cxrmodel.training.network_files import empty_network, read_architecture, read_weights

RECONSTRUCTION_BATCH = 4


def load_vae(directory: Path, file: str = VAE_WEIGHTS_FILE) -> VAE:
    """Return the trained network, in evaluation mode and on the CPU.

    Args:
        directory: Folder of the vae stage.
        file: The published weights, or those of the other epoch that the stage kept.

    Raises:
        DamagedArtifactError: A file is missing or unreadable, or the two do not fit together.
    """
    sizes = read_architecture(directory, ("image_size", "latent_dim", "group_norm", "output_bias"))
    try:
        model = empty_network(VAE, **sizes)
    except ValueError as error:
        raise DamagedArtifactError(f"{directory / CONFIG_FILE}: {error}") from error
    return read_weights(model, directory / file)


class ImageQuality(NamedTuple):
    """How close reconstructions are to their images.

    Attributes:
        l1: (B,), float32, mean absolute error on the [0, 1] scale.
        psnr: (B,), float32, peak signal-to-noise ratio in dB, for a peak of 1.
    """

    l1: Tensor
    psnr: Tensor


class Coder:
    """A trained network on its device.

    Args:
        vae: The network; moved to the device.
        device: Where to compute.
        precision: Resolved arithmetic of the network.
    """

    def __init__(self, vae: VAE, device: torch.device, precision: str) -> None:
        # In the memory layout of training: the same network gives the same mu as during training.
        self._vae: VAE = vae.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device, self._precision = device, precision

    def load(self, images: NDArray[np.uint8]) -> Tensor:
        """Return (B, S, S) bytes as (B, 1, S, S) float32 in [0, 1] on the device."""
        return to_device(images, self._device)

    @torch.inference_mode()
    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the posterior, each (B, Z), float32."""
        with autocast(self._device, self._precision):
            mu, logvar = self._vae.encoder(image)
        return mu, logvar

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Tensor:
        """Return the images (B, 1, S, S) of latents (B, Z), float32 in [0, 1]."""
        with autocast(self._device, self._precision):
            image: Tensor = self._vae.decoder(latent)
        return image


@torch.inference_mode()
def image_quality(reconstruction: Tensor, image: Tensor) -> ImageQuality:
    """Compare reconstructions with their images.

    Args:
        reconstruction: (B, 1, S, S), float32 in [0, 1].
        image: Of the same shape and scale.
    """
    error = (reconstruction - image).flatten(start_dim=1)  # (B, S * S)
    mean_square = error.square().mean(dim=1)
    return ImageQuality(error.abs().mean(dim=1), -10 * mean_square.log10())


def reconstruct(
    vae: VAE, images: NDArray[np.uint8], *, device: str = "auto"
) -> NDArray[np.float32]:
    """Decode the posterior means of images, in float32.

    Args:
        vae: A trained network; moved to the device.
        images: (B, S, S), uint8.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Returns:
        (B, S, S), float32 in [0, 1].
    """
    where = resolve_device(device)
    coder = Coder(vae, where, "float32")
    with keep_freed_memory(where):
        decoded = [
            coder.decode(coder.encode(coder.load(batch))[0]).squeeze(1).cpu().numpy()
            for batch in in_batches(images, RECONSTRUCTION_BATCH)
        ]
    return np.concatenate(decoded)
