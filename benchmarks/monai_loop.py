"""MONAI's `VarAutoEncoder` with our channels, strides and loss, in a plain loop; `bench` extra.

Its kernels have 3 x 3 pixels, for its padding knows no even ones: 9/16 of our arithmetic.
"""

from __future__ import annotations

import time
from multiprocessing.connection import Connection

import torch
from torch import Tensor, nn

from benchmarks.films import Films
from benchmarks.notebook import KL_WEIGHT, LATENT_DIM, load
from benchmarks.turns import take_turns
from cxrmodel.models.vae import CHANNELS

SIDE = 1024


def monai_training(
    turns: Connection, films: Films, num_images: int, batch_size: int, precision: str
) -> None:
    """Seconds per image of training on a CPU, its decoding in the main process left out."""
    training = MonaiTraining("cpu", precision)
    images = torch.cat([load(path) for path in films.paths[:num_images]])

    def work() -> float:
        start = time.perf_counter()
        for batch in images.split(batch_size):
            training.train(batch)
        return (time.perf_counter() - start) / num_images

    take_turns(turns, work)


class MonaiTraining:
    """The network and its optimiser on a device."""

    def __init__(self, device: str, precision: str) -> None:
        from monai.networks.nets import VarAutoEncoder

        widths = CHANNELS[1:]
        self.device, self.precision = device, precision
        self.model = VarAutoEncoder(
            2, (1, SIDE, SIDE), 1, LATENT_DIM, widths, (2,) * len(widths)
        ).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.l1 = nn.L1Loss()

    def train(self, batch: Tensor) -> None:
        """Make one step on (B, 1, S, S) float32 images."""
        batch = batch.to(self.device)
        is_bfloat16 = self.precision == "bfloat16"
        with torch.autocast(self.device, torch.bfloat16, enabled=is_bfloat16):
            reconstruction, mu, logvar, _ = self.model(batch)
        mu, logvar = mu.float(), logvar.float()
        kl = -0.5 * torch.mean(1 + logvar - mu.pow(2) - logvar.exp())
        loss = self.l1(reconstruction.float(), batch) + KL_WEIGHT * kl
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
