"""The processes that train one network together; by default just this one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

Rows = TypeVar("Rows", NDArray[np.int64], Tensor)
Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """One process among equals, each with its own part of every batch.

    All of them take the same steps, and their weights stay equal: the gradient that each applies
    is the mean over the whole batch. It is averaged after the backward pass, all at once, so that
    a process may repeat that pass where memory was short.

    Attributes:
        rank: Number of this process, from 0; process 0 keeps checkpoints and reports.
        size: Number of processes; above 1 `torch.distributed` must be initialised.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def joined(cls) -> World:
        """Return the world that `torch.distributed` has been initialised with, if any."""
        if not dist.is_available() or not dist.is_initialized():
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def part(self, rows: Rows) -> Rows:
        """Return this process's rows of a batch; of the first axis, possibly none."""
        return rows[self.rank :: self.size]

    def part_or_first(self, rows: Rows) -> Rows:
        """Return this process's rows, or the first one where there are fewer than processes.

        Each process has to go through the network in each step, if only for a weight of zero.
        """
        return self.part(rows) if self.rank < len(rows) else rows[:1]

    def share(self, num_images: int) -> float:
        """Return the weight of this process's mean loss, of which the mean over all is taken."""
        return len(range(self.rank, num_images, self.size)) * self.size / num_images

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their means over all processes."""
        if self.size == 1:
            return
        averaged = list(tensors)
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in averaged]:
            work.wait()
        torch._foreach_div_(averaged, self.size)

    def gathered(self, values: Tensor) -> Tensor:
        """Return all processes' rows in the order that `part` took them from.

        Args:
            values: (n, K), on this process's device; n differs by one at most.
        """
        if self.size == 1:
            return values
        parts: list[Tensor | None] = [None] * self.size
        dist.all_gather_object(parts, values.cpu())
        whole = torch.empty(sum(len(part) for part in parts if part is not None), values.shape[1])
        for rank, part in enumerate(parts):
            if part is not None:
                whole[rank :: self.size] = part
        return whole

    def from_leader(self, value: Value) -> Value:
        """Return process 0's value on every process."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


ALONE = World()
