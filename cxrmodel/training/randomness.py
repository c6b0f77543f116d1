"""Random numbers as a function of a seed and a counter, so that no generator's state is kept.

Epoch e always has the same order and step s the same noise, whatever happened before: a resumed
training needs to know only where it is. Nothing here touches the process's own generators.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Stream(IntEnum):
    """What the numbers are for; each is an independent sequence of one seed."""

    WEIGHTS = 0
    ORDER = 1
    NOISE = 2
    AUGMENTATION = 3


def seed_of(seed: int, stream: Stream, counter: int = 0) -> int:
    """Return a 64-bit seed for one use, by numpy's SeedSequence hash of its arguments."""
    sequence = np.random.SeedSequence([seed, stream, counter])
    return int(sequence.generate_state(1, np.uint64)[0])


def epoch_order(seed: int, epoch: int, num_rows: int) -> NDArray[np.int64]:
    """Return the order of an epoch's rows: a permutation of 0 ... num_rows - 1."""
    generator = torch.Generator().manual_seed(seed_of(seed, Stream.ORDER, epoch))
    order: NDArray[np.int64] = torch.randperm(num_rows, generator=generator).numpy()
    return order


def step_noise(
    seed: int, step: int, shape: tuple[int, int], stream: Stream = Stream.NOISE
) -> Tensor:
    """Return a step's sample of N(0, I), drawn on the CPU whatever the device; float32."""
    generator = torch.Generator().manual_seed(seed_of(seed, stream, step))
    return torch.randn(shape, generator=generator)
