"""The training loops that ours is compared with: the notebook's, and one with MONAI's network."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cxrmodel.models.vae import CHANNELS

SIDE_PX = 1024
LATENT_DIM = 64
KL_WEIGHT = 1e-3
LAST_MAP = (256, 16, 16)


class NotebookVAE(nn.Module):
    """Six convolutions down, six up, in PyTorch's default layout."""

    def __init__(self) -> None:
        super().__init__()
        channels = [1, 16, 32, 64, 128, 256, 256]
        down: list[nn.Module] = []
        for num_in, num_out in pairwise(channels):
            down += [nn.Conv2d(num_in, num_out, 4, 2, 1), nn.LeakyReLU(0.2)]
        up: list[nn.Module] = []
        for num_in, num_out in pairwise(reversed(channels)):
            up += [nn.ConvTranspose2d(num_in, num_out, 4, 2, 1), nn.LeakyReLU(0.2)]
        num_features = int(np.prod(LAST_MAP))
        self.down, self.up = nn.Sequential(*down), nn.Sequential(*up[:-1], nn.Sigmoid())
        self.to_mu = nn.Linear(num_features, LATENT_DIM)
        self.to_logvar = nn.Linear(num_features, LATENT_DIM)
        self.from_latent = nn.Linear(LATENT_DIM, num_features)

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the posterior."""
        features = self.down(image).flatten(1)
        return self.to_mu(features), self.to_logvar(features).clamp(-10, 10)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a reconstruction from a sample, and the posterior."""
        mu, logvar = self.encode(image)
        latent = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.up(self.from_latent(latent).view(-1, *LAST_MAP)), mu, logvar


def load(path: Path) -> Tensor:
    """Decode one file to (1, 1, 1024, 1024) in [0, 1]; the images are square already."""
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        pixels = np.asarray(image.convert("L"), dtype=np.float32) / 255
    return torch.from_numpy(pixels)[None, None]


class NotebookTraining:
    """The notebook's loops: batch 1, float32, decoding in the main process."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.model = NotebookVAE().to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.l1 = nn.L1Loss()

    def train(self, paths: list[Path]) -> None:
        """Make a step per image, and read its loss, as the notebook's progress bar does."""
        for path in paths:
            image = load(path).to(self.device)
            reconstruction, mu, logvar = self.model(image)
            kl = -0.5 * torch.mean(1 + logvar - mu.pow(2) - logvar.exp())
            loss = self.l1(reconstruction, image) + KL_WEIGHT * kl
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss.item()

    def encode(self, paths: list[Path]) -> None:
        """Encode image after image to mu."""
        with torch.no_grad():
            for path in paths:
                self.model.encode(load(path).to(self.device))[0].cpu().numpy()


class MonaiTraining:
    """MONAI's `VarAutoEncoder` with our channels, strides and loss; from the `bench` extra.

    Its kernels have 3 x 3 pixels, since its padding does not suit even sizes: 9/16 of our
    arithmetic.
    """

    def __init__(self, device: str, precision: str) -> None:
        from monai.networks.nets import VarAutoEncoder

        widths = CHANNELS[1:]
        self.device, self.precision = device, precision
        self.model = VarAutoEncoder(
            2, (1, SIDE_PX, SIDE_PX), 1, LATENT_DIM, widths, (2,) * len(widths)
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
