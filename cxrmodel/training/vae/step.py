"""Optimiser steps of the autoencoder, each of which either happened or did not."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxrmodel.models.vae import VAEOutput, vae_loss
from cxrmodel.training.batches import to_device
from cxrmodel.training.checkpoints import Checkpoint
from cxrmodel.training.devices import autocast, is_out_of_memory
from cxrmodel.training.randomness import Stream, step_noise
from cxrmodel.training.vae.augmentation import NUM_DRAWS, augment
from cxrmodel.training.vae.settings import ResolvedVAEConfig
from cxrmodel.training.vae.state import TrainingState, initial_vae, no_sums, pack, unpack
from cxrmodel.training.vae.world import World

WARM_UP = 0.05  # of the steps, with the cosine schedule

logger = logging.getLogger(__name__)


class VAESteps:
    """Network, optimiser and the state they are in.

    Args:
        config: Settings.
        image_size: Side of the images in pixels.
        num_steps: Steps of the whole training, for the schedule of the learning rate.
        device: Where to compute.
        world: The processes that train together.

    Attributes:
        model: The network being trained, on its device.
        state: Where training is.
        micro_batch: Images that go through the network at once; halved where memory is short.
    """

    def __init__(
        self,
        config: ResolvedVAEConfig,
        image_size: int,
        num_steps: int,
        device: torch.device,
        world: World,
    ) -> None:
        self._config, self._device, self._world = config, device, world
        self._num_steps = num_steps
        self.model = initial_vae(config, image_size, device)
        self._network = torch.compile(self.model) if config.compile else self.model
        # Fused: one kernel for all weights. Without weight decay the arithmetic is Adam's.
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.state = TrainingState(0, no_sums(device))
        self.micro_batch = config.batch_size
        self._attempt: tuple[TrainingState, Tensor] | None = None

    def take(self, images: NDArray[np.uint8], batch_size: int) -> None:
        """Make one step, without waiting for the device.

        Args:
            images: (B, S, S), uint8, this process's part of the batch.
            batch_size: Images of all processes in this step.

        Raises:
            MemoryError: There is too little even for one image at a time.
        """
        noise = self._world.part_or_first(self._draw(batch_size))
        share = self._world.share(batch_size)
        while True:
            try:
                means = self._backward(images, noise, share)
                break
            except RuntimeError as error:
                self._halve(error)
        weights = self.model.parameters()
        self._world.average([means, *(w.grad for w in weights if w.grad is not None)])
        self._update_weights(means, batch_size)
        self._optimizer.zero_grad(set_to_none=True)

    def reconstruct(self, images: NDArray[np.uint8]) -> tuple[Tensor, VAEOutput]:
        """Encode images and decode the posterior mean.

        Args:
            images: (B, S, S), uint8.

        Returns:
            The images as (B, 1, S, S), float32 in [0, 1] on the device, and what became of them.
        """
        return self._forward(images, torch.zeros(len(images), self._config.latent_dim))

    def lr_of(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if self._config.schedule == "constant":
            return self._config.lr
        rise = min(1.0, (step + 1) / (WARM_UP * self._num_steps))
        return self._config.lr * rise * 0.5 * (1 + math.cos(math.pi * step / self._num_steps))

    def rates(self) -> dict[str, float]:
        """Return the learning rate and the weight of the KL in the last step."""
        return {"lr": self.lr_of(self.state.step - 1), "kl_weight": self._config.kl_weight}

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
        return pack(self.model, self._optimizer, self.state, self._config.batch_size)

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Set weights, optimiser and state as they were."""
        self.state = unpack(checkpoint, self.model, self._optimizer)

    def _draw(self, batch_size: int) -> Tensor:
        """Return the random numbers of a step, (B, Z) for the latents and the rest for images."""
        kinds = {Stream.NOISE: self._config.latent_dim}
        if self._config.augmentation:
            kinds[Stream.AUGMENTATION] = NUM_DRAWS
        seed, step = self._config.seed, self.state.step
        drawn = [step_noise(seed, step, (batch_size, n), stream) for stream, n in kinds.items()]
        return torch.cat(drawn, dim=1)

    def _forward(self, images: NDArray[np.uint8], draws: Tensor) -> tuple[Tensor, VAEOutput]:
        image, draws = to_device(images, self._device), draws.to(self._device, non_blocking=True)
        noise, changes = draws.tensor_split([self._config.latent_dim], dim=1)
        if changes.shape[1]:
            image = augment(image, changes, self._config.augmentation)
        with autocast(self._device, self._config.precision):
            return image, self._network(image, noise)

    def _backward(self, images: NDArray[np.uint8], draws: Tensor, weight: float) -> Tensor:
        """Compute the gradients of the weighted mean loss; return its L1 and KL in nats, (2,)."""
        means = torch.zeros(2, device=self._device)
        for start in range(0, len(images), self.micro_batch):
            part = slice(start, start + self.micro_batch)
            share = weight * len(images[part]) / len(images)
            image, output = self._forward(images[part], draws[part])
            terms = vae_loss(output, image, self._config.kl_weight)
            (share * terms.loss).backward()  # type: ignore[no-untyped-call]
            means += (
                share * torch.stack([terms.l1, terms.kl_per_dim * self._config.latent_dim]).detach()
            )
        return means

    def _halve(self, error: RuntimeError) -> None:
        if not is_out_of_memory(error):
            raise error
        if self.micro_batch == 1:
            raise MemoryError(
                f"{self._device} has too little memory to train on one image of "
                f"{self.model.image_size} pixels at a time. {self._less_memory()}."
            ) from error
        self._optimizer.zero_grad(set_to_none=True)
        self.micro_batch = self.micro_batch // 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning(
            "Out of memory at step %d: a batch now goes through the network %d images at a time. "
            "Its gradient stays the mean over all of them.",
            self.state.step + 1,
            self.micro_batch,
        )

    def _less_memory(self) -> str:
        remedies = ["Lower images.size"]
        if not self._config.gradient_checkpointing:
            remedies.append("set vae.gradient_checkpointing")
        if self._config.precision != "bfloat16":
            remedies.append("set vae.precision to bfloat16")
        return ", or ".join(remedies)

    def _update_weights(self, means: Tensor, num_images: int) -> None:
        max_norm = self._config.max_grad_norm
        usable = None if max_norm is None else self._clip(max_norm)
        counted = torch.tensor([num_images, 0.0]).to(means.device, non_blocking=True)
        terms = torch.cat([num_images * means, counted]).to(self.state.sums.dtype)
        if usable is not None:
            terms = torch.where(usable, terms, torch.tensor([0.0, 0.0, 0.0, 1.0]).to(terms))
        following = replace(self.state, step=self.state.step + 1, sums=self.state.sums + terms)
        self._attempt = (following, self._probe().clone())
        self._optimizer.param_groups[0]["lr"] = self.lr_of(self.state.step)
        self._optimizer.step()
        self.state = following

    def _clip(self, max_norm: float) -> Tensor:
        """Bound the gradient's norm; return whether it is a number, without waiting for it.

        The optimiser's kernel itself leaves weights and moments alone where it is not, by the
        attributes that `torch.amp.GradScaler` sets.
        """
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)
        self._optimizer.grad_scale = None  # type: ignore[attr-defined]
        self._optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        return norm.isfinite()

    def _probe(self) -> Tensor:
        # The fused kernel changes all weights or none before a signal's handler can run.
        return self.model.encoder.to_mu.bias.detach()
