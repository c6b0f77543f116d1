"""How many images a training step has room for."""

from __future__ import annotations

import torch
from torch import Tensor

from cxrmodel.machine import usable_memory_bytes
from cxrmodel.models.vae import VAE, vae_loss
from cxrmodel.training.devices import autocast

LARGEST_BATCH = 64
USABLE_SHARE = 0.5  # of the memory; the rest is for pixels on their way, workspaces, the system
STEP_FACTOR = 2.5  # a step also holds the gradients of what it saved, most of them at its end
STATES_PER_WEIGHT = 4  # the weight, its gradient and Adam's two moments


def largest_batch(model: VAE, precision: str) -> int:
    """Return the largest power of two of images, up to 64, that a training step has room for.

    Only the whole memory counts, not what is free at the moment: the same machine gives the same
    answer each time.

    Args:
        model: The network, on its device.
        precision: Resolved arithmetic of the network.
    """
    weights = sum(weight.nbytes for weight in model.parameters()) * STATES_PER_WEIGHT
    room = memory_bytes(next(model.parameters()).device) * USABLE_SHARE - weights
    image = STEP_FACTOR * saved_bytes(model, precision)
    batch = 1
    while batch < LARGEST_BATCH and 2 * batch * image <= room:
        batch *= 2
    return batch


def saved_bytes(model: VAE, precision: str) -> int:
    """Return the bytes of activations that a step saves for its backward pass, an image."""
    two, one = (_saved_bytes(model, precision, num_images) for num_images in (2, 1))
    return two - one  # without what does not grow with the batch, such as weights in bfloat16


def _saved_bytes(model: VAE, precision: str, num_images: int) -> int:
    device = next(model.parameters()).device
    seen: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    image = torch.zeros(num_images, 1, model.image_size, model.image_size, device=device)
    noise = torch.zeros(num_images, model.latent_dim, device=device)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        with autocast(device, precision):
            output = model(image, noise)
        vae_loss(output, image, 0.0)
    return sum(seen.values())


def memory_bytes(device: torch.device) -> int:
    """Return how much memory a device has, a container's limit taken into account."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return usable_memory_bytes()
