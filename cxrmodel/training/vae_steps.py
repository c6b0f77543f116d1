"""Optimiser steps of the autoencoder, each of which either happened or did not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrmodel.config import VAEConfig
from cxrmodel.models.vae import VAELoss, VAEOutput, vae_loss
from cxrmodel.training.batches import to_device
from cxrmodel.training.checkpoints import Checkpoint
from cxrmodel.training.devices import autocast
from cxrmodel.training.randomness import step_noise
from cxrmodel.training.vae_state import TrainingState, initial_vae, no_sums, pack, unpack


class VAESteps:
    """Network, optimiser and the state they are in.

    Args:
        config: Settings.
        image_size: Side of the images in pixels.
        device: Where to compute.
        precision: Resolved arithmetic of the network.

    Attributes:
        model: The network being trained, on its device.
        state: Where training is.
    """

    def __init__(
        self, config: VAEConfig, image_size: int, device: torch.device, precision: str
    ) -> None:
        self._config, self._device, self._precision = config, device, precision
        self.model = initial_vae(config, image_size, device)
        # Fused: one kernel for all weights; the arithmetic is Adam's either way.
        self._optimizer = torch.optim.Adam(self.model.parameters(), lr=config.lr, fused=True)
        self.state = TrainingState(0, no_sums(device))
        self._attempt: tuple[TrainingState, Tensor] | None = None

    def take(self, images: NDArray[np.uint8]) -> None:
        """Make one step, without waiting for the device.

        Args:
            images: (B, S, S), uint8.
        """
        noise = step_noise(self._config.seed, self.state.step, self._latent_shape(images))
        image, output = self._forward(images, noise)
        terms = vae_loss(output, image, self._config.kl_weight)
        terms.loss.backward()  # type: ignore[no-untyped-call]
        self._update_weights(terms, len(images))
        self._optimizer.zero_grad(set_to_none=True)

    def reconstruct(self, images: NDArray[np.uint8]) -> tuple[Tensor, VAEOutput]:
        """Encode images and decode the posterior mean.

        Args:
            images: (B, S, S), uint8.

        Returns:
            The images as (B, 1, S, S), float32 in [0, 1] on the device, and what became of them.
        """
        return self._forward(images, torch.zeros(self._latent_shape(images)))

    def settle(self) -> None:
        """Record a step that changed the weights, but was interrupted before it was recorded."""
        if self._attempt is None:
            return
        following, before = self._attempt
        if following.step == self.state.step + 1 and not torch.equal(before, self._probe()):
            self.state = following

    def are_finite(self) -> bool:
        """Say whether every weight is a number; waits for the device."""
        finite = [weight.isfinite().all() for weight in self.model.parameters()]
        return bool(torch.stack(finite).all())

    def checkpoint(self) -> Checkpoint:
        """Copy weights, optimiser and state to the CPU; at least one step must have been made."""
        return pack(self.model, self._optimizer, self.state)

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Set weights, optimiser and state as they were."""
        self.state = unpack(checkpoint, self.model, self._optimizer)

    def _latent_shape(self, images: NDArray[np.uint8]) -> tuple[int, int]:
        return len(images), self._config.latent_dim

    def _forward(self, images: NDArray[np.uint8], noise: Tensor) -> tuple[Tensor, VAEOutput]:
        image = to_device(images, self._device)
        with autocast(self._device, self._precision):
            return image, self.model(image, noise.to(self._device, non_blocking=True))

    def _update_weights(self, terms: VAELoss, num_images: int) -> None:
        means = torch.stack([terms.l1, terms.kl_per_dim * self._config.latent_dim]).detach()
        sums = self.state.sums + num_images * means.to(self.state.sums.dtype)
        following = replace(self.state, step=self.state.step + 1, sums=sums)
        self._attempt = (following, self._probe().clone())
        self._optimizer.step()
        self.state = following

    def _probe(self) -> Tensor:
        # The fused kernel changes all weights or none before a signal's handler can run.
        return self.model.encoder.to_mu.bias.detach()
