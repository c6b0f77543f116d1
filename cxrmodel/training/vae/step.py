"""Optimiser steps of the autoencoder, each of which either happened or did not."""

from __future__ import annotations

import logging
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxrmodel.models.vae import VAE, VAEOutput
from cxrmodel.training.checkpoints import Checkpoint, EpochRecord
from cxrmodel.training.devices import autocast, is_out_of_memory
from cxrmodel.training.image_batches import to_device
from cxrmodel.training.randomness import Stream, step_noise
from cxrmodel.training.vae.augmentation import NUM_DRAWS, augment
from cxrmodel.training.vae.auto_settings import ResolvedVAEConfig
from cxrmodel.training.vae.objective import Objective
from cxrmodel.training.vae.state import TrainingState, packed_weights, weights_in
from cxrmodel.training.vae.world import World

WARM_UP = 0.05  # of the steps, with the cosine schedule
SUMS = "sums"
MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's names

logger = logging.getLogger(__name__)


class VAESteps:
    """Network and optimiser; each step leads from one state to the next.

    Args:
        config: Settings.
        objective: What to minimise.
        model: The network at its first step, on its device.
        num_steps: Steps of the whole training, for the schedule of the learning rate.
        world: The processes that train together.

    Attributes:
        micro_batch: Images that go through the network at once; halved where memory is short.
    """

    def __init__(
        self,
        config: ResolvedVAEConfig,
        objective: Objective,
        model: VAE,
        num_steps: int,
        world: World,
    ) -> None:
        self._config, self._objective, self._world = config, objective, world
        self._model, self._num_steps = model, num_steps
        self._device = next(model.parameters()).device
        # Fused: one kernel for all weights. Without weight decay the arithmetic is Adam's.
        # As vectors: of a weight that is channels last, the kernel for the CPU copies everything.
        self._vectors = {
            name: nn.Parameter(_in_memory_order(weight.detach(), weight))
            for name, weight in model.named_parameters()
        }
        self._optimizer = torch.optim.AdamW(
            self._vectors.values(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.micro_batch = config.batch_size
        self._attempt: tuple[TrainingState, Tensor] | None = None

    def first_state(self) -> TrainingState:
        """Return the state before the first step."""
        return TrainingState.first(len(self._objective.terms), self._device)

    def take(
        self, state: TrainingState, images: NDArray[np.uint8], batch_size: int
    ) -> TrainingState:
        """Make one step, without waiting for the device.

        Args:
            state: Where training is.
            images: (B, S, S), uint8, this process's part of the batch.
            batch_size: Images of all processes in this step.

        Returns:
            Where training is after the step.

        Raises:
            MemoryError: There is too little even for one image at a time.
        """
        draws = self._world.part_or_first(self._draw(state.step, batch_size))
        means = self._gradients(state.step, images, draws, self._world.share(batch_size))
        gradients = [weight.grad for weight in self._model.parameters() if weight.grad is not None]
        self._world.average([means, *gradients])
        following = self._update_weights(state, means, batch_size)
        self._drop_gradients()
        return following

    def reconstruct(self, images: NDArray[np.uint8]) -> tuple[Tensor, VAEOutput]:
        """Encode images and decode the posterior mean.

        Args:
            images: (B, S, S), uint8.

        Returns:
            The images as (B, 1, S, S), float32 in [0, 1] on the device, and what the network made
            of them.
        """
        return self._forward(images, torch.zeros(len(images), self._config.latent_dim))

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if self._config.schedule == "constant":
            return self._config.lr
        rise = min(1.0, (step + 1) / (WARM_UP * self._num_steps))
        return self._config.lr * rise * 0.5 * (1 + math.cos(math.pi * step / self._num_steps))

    def settle(self, state: TrainingState) -> TrainingState:
        """Return where training is if an interruption fell between a step and its record."""
        if self._attempt is None:
            return state
        following, before = self._attempt
        is_next = following.step == state.step + 1
        return following if is_next and not torch.equal(before, self._probe()) else state

    def are_finite(self) -> bool:
        """Say whether every weight is a number; waits for the device."""
        finite = [weight.isfinite().all() for weight in self._model.parameters()]
        return bool(torch.stack(finite).all())

    def checkpoint(self, state: TrainingState) -> Checkpoint:
        """Copy weights, optimiser and state to the CPU; at least one step must have been made."""
        tensors = {SUMS: state.sums.cpu(), **packed_weights(self._model)}
        for name, weight in self._model.named_parameters():
            for moment in MOMENTS:
                vector = self._optimizer.state[self._vectors[name]][moment]
                of_weight = vector.as_strided(weight.shape, weight.stride())
                tensors[f"{moment}.{name}"] = of_weight.cpu().contiguous()
        return self._checkpoint(state.step, state.history, state.best_epoch, tensors)

    def weights_of_epoch(self, state: TrainingState, epoch: int) -> Checkpoint:
        """Copy the weights alone to the CPU."""
        return self._checkpoint(state.step, (), epoch, packed_weights(self._model))

    def _checkpoint(
        self,
        step: int,
        history: tuple[EpochRecord, ...],
        best_epoch: int,
        tensors: dict[str, Tensor],
    ) -> Checkpoint:
        batch_size, num_threads = self._config.batch_size, torch.get_num_threads()
        return Checkpoint(step, list(history), best_epoch, batch_size, num_threads, tensors)

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> TrainingState:
        """Set weights and optimiser as they were, and return where training was."""
        self._model.load_state_dict(weights_in(checkpoint))
        sums, history = checkpoint.tensors[SUMS], tuple(checkpoint.history)
        skipped = sum(epoch["skipped_steps"] or 0 for epoch in history) + float(sums[-1])
        for name, weight in self._model.named_parameters():
            self._optimizer.state[self._vectors[name]] = {
                "step": torch.tensor(float(checkpoint.step - skipped), device=weight.device),
                **{
                    moment: _in_memory_order(checkpoint.tensors[f"{moment}.{name}"], weight)
                    for moment in MOMENTS
                },
            }
        return TrainingState(checkpoint.step, sums.to(self._device), history, checkpoint.best_epoch)

    def _draw(self, step: int, batch_size: int) -> Tensor:
        """Return the random numbers of a step, (B, Z) for the latents and the rest for images."""
        kinds = {Stream.NOISE: self._config.latent_dim}
        if self._config.augmentation:
            kinds[Stream.AUGMENTATION] = NUM_DRAWS
        seed = self._config.seed
        drawn = [step_noise(seed, step, (batch_size, n), stream) for stream, n in kinds.items()]
        return torch.cat(drawn, dim=1)

    def _forward(self, images: NDArray[np.uint8], draws: Tensor) -> tuple[Tensor, VAEOutput]:
        image, draws = to_device(images, self._device), draws.to(self._device, non_blocking=True)
        noise, changes = draws.tensor_split([self._config.latent_dim], dim=1)
        if changes.shape[1]:
            image = augment(image, changes, self._config.augmentation)
        with autocast(self._device, self._config.precision):
            return image, self._model(image, noise)

    def _gradients(
        self, step: int, images: NDArray[np.uint8], draws: Tensor, share: float
    ) -> Tensor:
        """Compute the gradients, with fewer images at once where memory is short."""
        while True:
            try:
                return self._backward(step, images, draws, share)
            except RuntimeError as error:
                self._halve(step, error)

    def _backward(
        self, step: int, images: NDArray[np.uint8], draws: Tensor, share: float
    ) -> Tensor:
        """Compute the gradients of the mean loss times `share`; return its terms, (T,)."""
        names, weights = self._objective.terms, self._objective.weights(step)
        means = torch.zeros(len(names), device=self._device)
        for start in range(0, len(images), self.micro_batch):
            chosen = slice(start, start + self.micro_batch)
            part = share * len(images[chosen]) / len(images)
            image, output = self._forward(images[chosen], draws[chosen])
            terms = self._objective.measure(output, image)
            loss = self._objective.loss(terms, weights)
            (part * loss).backward()  # type: ignore[no-untyped-call]
            means += part * torch.stack([terms[name] for name in names]).detach()
        return means

    def _halve(self, step: int, error: RuntimeError) -> None:
        if not is_out_of_memory(error):
            raise error
        if self.micro_batch == 1:
            raise MemoryError(
                f"{self._device} has too little memory to train on one image of "
                f"{self._model.image_size} pixels at a time. {self._less_memory()}."
            ) from error
        self._drop_gradients()
        self.micro_batch = self.micro_batch // 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning(
            "Out of memory at step %d: a batch now goes through the network %d images at a time. "
            "Its gradient stays the mean over all of them.",
            step + 1,
            self.micro_batch,
        )

    def _less_memory(self) -> str:
        remedies = ["Lower images.size"]
        if not self._config.gradient_checkpointing:
            remedies.append("set vae.gradient_checkpointing")
        if self._config.precision != "bfloat16":
            remedies.append("set vae.precision to bfloat16")
        return ", or ".join(remedies)

    def _update_weights(
        self, state: TrainingState, means: Tensor, num_images: int
    ) -> TrainingState:
        for name, weight in self._model.named_parameters():
            if weight.grad is not None:
                self._vectors[name].grad = _in_memory_order(weight.grad, weight)
        max_norm = self._config.max_grad_norm
        is_usable = None if max_norm is None else self._clip(max_norm)
        counted = torch.tensor([num_images, 0.0]).to(means.device, non_blocking=True)
        sums = torch.cat([num_images * means, counted]).to(state.sums.dtype)
        if is_usable is not None:
            skipped = torch.tensor([0.0] * (len(sums) - 1) + [1.0]).to(sums)
            sums = torch.where(is_usable, sums, skipped)
        following = state.after_step(sums)
        self._attempt = (following, self._probe().clone())
        self._optimizer.param_groups[0]["lr"] = self.lr_at(state.step)
        self._optimizer.step()
        return following

    def _clip(self, max_norm: float) -> Tensor:
        """Bound the gradient's norm; return whether it is a number, without waiting for it.

        Where it is not, the optimiser's kernel itself leaves weights and moments alone, through
        the attributes that `torch.amp.GradScaler` sets.
        """
        norm = nn.utils.clip_grad_norm_(self._vectors.values(), max_norm)
        self._optimizer.grad_scale = None  # type: ignore[attr-defined]
        self._optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        return norm.isfinite()

    def _drop_gradients(self) -> None:
        self._model.zero_grad(set_to_none=True)
        self._optimizer.zero_grad(set_to_none=True)

    def _probe(self) -> Tensor:
        # The fused kernel changes all weights or none before a signal's handler can run.
        return self._model.encoder.to_mu.bias.detach()


def _in_memory_order(tensor: Tensor, weight: Tensor) -> Tensor:
    """Return a tensor of a weight's shape as a vector, ordered as the weight lies in memory.

    Shares memory where the tensor has the weight's device and layout.
    """
    if tensor.device != weight.device or tensor.stride() != weight.stride():
        tensor = torch.empty_like(weight, requires_grad=False).copy_(tensor)
    return tensor.as_strided((tensor.numel(),), (1,))
