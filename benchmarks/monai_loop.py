"""MONAI's `VarAutoEncoder` with our channels, strides and loss, in a plain loop; `bench` extra.

Its kernels have 3 x 3 pixels, for its padding knows no even ones: 9/16 of our arithmetic.
"""

from __future__ import annotations

import time
from multiprocessing.connection import Connection

import torch
from torch import nn

from benchmarks.films import Films
from benchmarks.notebook import KL_WEIGHT, LATENT_DIM, load
from benchmarks.turns import take_turns
from cxrmodel.models.vae import CHANNELS

SIDE = 1024


def monai_training(
    turns: Connection, films: Films, num_images: int, batch_size: int, precision: str
) -> None:
    """Seconds an image of training, its decoding in the main process left out."""
    from monai.networks.nets import VarAutoEncoder

    widths = CHANNELS[1:]
    model = VarAutoEncoder(2, (1, SIDE, SIDE), 1, LATENT_DIM, widths, (2,) * len(widths))
    optimizer, l1 = torch.optim.Adam(model.parameters(), lr=1e-4), nn.L1Loss()
    images = torch.cat([load(path) for path in films.paths[:num_images]])

    def work() -> float:
        start = time.perf_counter()
        for batch in images.split(batch_size):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                reconstruction, mu, logvar, _ = model(batch)
            mu, logvar = mu.float(), logvar.float()
            kl = -0.5 * torch.mean(1 + logvar - mu.pow(2) - logvar.exp())
            loss = l1(reconstruction.float(), batch) + KL_WEIGHT * kl
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return (time.perf_counter() - start) / num_images

    take_turns(turns, work)
