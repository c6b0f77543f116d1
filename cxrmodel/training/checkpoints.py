"""Training in progress on disk: written whole or not at all, and read without running anything.

A checkpoint is a safetensors file: tensors, and in its header one JSON record. The last checkpoint
and the one before it are kept, so that a damaged file costs one interval of training, not all.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cxrmodel.errors import ScratchSpaceError
from cxrmodel.training.checkpoint_copies import (
    BEST_EPOCH,
    STEP,
    SUFFIX,
    CheckpointCopies,
    copy_name,
)

FORMAT = 3
HEADER = "checkpoint"
EpochRecord = dict[str, Any]  # metrics by name: a number, None, or a number per dimension
FIELDS = ("step", "history", "best_epoch", "batch_size", "num_threads")
NO_FOLDER_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # errors of some network file systems
LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A moment of training that it can continue from.

    Attributes:
        step: Optimiser steps finished.
        history: Metrics of each finished and validated epoch.
        best_epoch: Number of the epoch with the lowest validation loss so far, from 1; 0: none.
        batch_size: Images per step.
        num_threads: Threads that compute on a CPU: another number rounds differently.
        tensors: Weights, optimiser state and running sums, contiguous, on the CPU.
    """

    step: int
    history: list[EpochRecord]
    best_epoch: int
    batch_size: int
    num_threads: int
    tensors: Mapping[str, Tensor] = field(repr=False)


class UnusableCheckpointError(Exception):
    """A checkpoint file cannot be continued from; the text says why."""


class CheckpointFolder:
    """The checkpoints of one training.

    Args:
        directory: Their folder; made when first written to.
        run_key: Identity of settings and data; a checkpoint with another one is refused.
        copies: Where else to keep them, for an attempt on another machine.
    """

    def __init__(
        self, directory: Path, run_key: str, copies: CheckpointCopies | None = None
    ) -> None:
        self.directory = directory
        self._run_key, self._copies = run_key, copies

    @property
    def last(self) -> Path:
        """Path of the last checkpoint, written or not."""
        return self.directory / LAST

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the last checkpoint; the existing one becomes the previous one."""
        partial = self._write(LAST, checkpoint)
        if self.last.exists():
            self.last.replace(self.directory / PREVIOUS)
        self._publish(partial, LAST)
        if self._copies:
            files = self._files(checkpoint.step, checkpoint.best_epoch)
            self._copies.send(files, checkpoint.step)

    def finish_copies(self, step: int, best_epoch: int) -> None:
        """Wait some seconds until the last checkpoint has its copy; the attempt ends here.

        Args:
            step: Of the last checkpoint; 0: there is none.
            best_epoch: As the last checkpoint names it; 0: none.
        """
        if self._copies and step and self.last.exists():
            self._copies.finish(self._files(step, best_epoch), step)

    def _files(self, step: int, best_epoch: int) -> dict[str, Path]:
        """Return the local paths by their names in the store, in the order to copy them in."""
        files = {copy_name(STEP, step): self.last}
        best = self.directory / BEST
        if best_epoch and best.exists():  # `load_best` has warned otherwise
            files = {copy_name(BEST_EPOCH, best_epoch): best} | files
        return files

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Write the weights of the best epoch so far."""
        self._publish(self._write(BEST, checkpoint), BEST)

    def load(self) -> Checkpoint | None:
        """Return the latest usable checkpoint; warn of each that is not, None where none is.

        Copies that are further than the local checkpoints are fetched first.
        """
        for leftover in self.directory.glob(f"*{SUFFIX}"):  # of an attempt that was killed
            leftover.unlink(missing_ok=True)
        here = self._load_here()
        return self._load_copy(here.step if here else 0) or here

    def _load_copy(self, step: int) -> Checkpoint | None:
        """Make the newest usable copy that is further than a step the last checkpoint."""
        for name in self._copies.newer_than(step) if self._copies else []:
            checkpoint = self._fetch(name)
            if checkpoint is None:
                continue
            best = copy_name(BEST_EPOCH, checkpoint.best_epoch)
            # Before the checkpoint: a kill in between must not leave one without its best epoch.
            if checkpoint.best_epoch and self._fetch(best):
                self._publish(self._fetched(best), BEST)
            self._publish(self._fetched(name), LAST)
            return checkpoint
        return None

    def _fetch(self, name: str) -> Checkpoint | None:
        """Copy a checkpoint from the store to the local folder; None if it is not usable."""
        assert self._copies is not None  # noqa: S101 - it has named the copy
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self._fetched(name)
        if not self._copies.fetch(name, path):
            path.unlink(missing_ok=True)
            return None
        try:
            return self._read(path)
        except UnusableCheckpointError as error:
            logger.warning("Not continuing from the copy %s in the store: %s", name, error)
            path.unlink()
            return None

    def _fetched(self, name: str) -> Path:
        return self.directory / f"{name}{SUFFIX}"

    def _load_here(self) -> Checkpoint | None:
        found = [path for path in (self.last, self.directory / PREVIOUS) if path.exists()]
        for path in found:
            try:
                checkpoint = self._read(path)
            except UnusableCheckpointError as error:
                logger.warning("Not continuing from %s: %s", path, error)
                continue
            if path != self.last:
                self.last.unlink(
                    missing_ok=True
                )  # otherwise `save` would replace the previous one with it
            return checkpoint
        if found:
            logger.warning("No checkpoint in %s can be continued from.", self.directory)
        return None

    def load_best(self) -> Checkpoint | None:
        """Return the checkpoint of the best epoch, or None with a warning if it is not usable."""
        path = self.directory / BEST
        try:
            return self._read(path)
        except UnusableCheckpointError as error:
            logger.warning("The weights of the best epoch in %s are lost: %s", path, error)
            return None

    def _write(self, name: str, checkpoint: Checkpoint) -> Path:
        record = {
            "format": FORMAT,
            "run_key": self._run_key,
            **{name: getattr(checkpoint, name) for name in FIELDS},
            "crc32": _checksum(checkpoint.tensors),
        }
        partial = self.directory / f"{name}.partial"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            save_file(dict(checkpoint.tensors), partial, {HEADER: json.dumps(record)})
            _flush_to_disk(partial)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):  # the folder is missing, or is not ours
                partial.unlink()
            raise ScratchSpaceError(
                f"The checkpoint {partial} could not be written: {error}. Free some space there, "
                "make the folder writable, or choose another store.scratch."
            ) from error
        return partial

    def _publish(self, partial: Path, name: str) -> None:
        partial.replace(self.directory / name)
        try:
            _flush_to_disk(self.directory)
        except OSError as error:
            if error.errno not in NO_FOLDER_FLUSH:
                raise

    def _read(self, path: Path) -> Checkpoint:
        try:
            with safe_open(path, framework="pt") as file:
                record: dict[str, Any] = json.loads((file.metadata() or {})[HEADER])
                self._check_identity(record)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            intact = record["crc32"] == _checksum(tensors)
            fields = {name: record[name] for name in FIELDS}
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise UnusableCheckpointError(f"it is damaged ({error}).") from error
        if not intact:
            raise UnusableCheckpointError("it is damaged (its checksum does not match).")
        return Checkpoint(**fields, tensors=tensors)

    def _check_identity(self, record: dict[str, Any]) -> None:
        if record["format"] != FORMAT:
            raise UnusableCheckpointError(
                f"its format is {record['format']!r}, and this version reads {FORMAT}."
            )
        if record["run_key"] != self._run_key:
            raise UnusableCheckpointError("it belongs to a training with other settings or data.")


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(name.encode(), checksum)
        checksum = zlib.crc32(tensors[name].numpy().reshape(-1).view("uint8").data, checksum)
    return checksum


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
