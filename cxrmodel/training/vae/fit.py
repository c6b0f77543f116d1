"""The vae stage: train the autoencoder and publish its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor

from cxrmodel.config import VAEConfig
from cxrmodel.errors import DamagedArtifactError
from cxrmodel.progress import ReportProgress, silent
from cxrmodel.storage.layout import (
    HISTORY_FILE,
    VAE_BEST_WEIGHTS_FILE,
    VAE_LAST_WEIGHTS_FILE,
    VAE_WEIGHTS_FILE,
)
from cxrmodel.training.batches import MORE_DATA, SplitRows, split_rows
from cxrmodel.training.checkpoint_copies import CheckpointCopies
from cxrmodel.training.checkpoints import CheckpointFolder
from cxrmodel.training.devices import (
    deterministic_kernels,
    keep_freed_memory,
    resolve_device,
    resolve_precision,
)
from cxrmodel.training.encoding import load_vae
from cxrmodel.training.published import (
    contiguous_state,
    write_config,
    write_table,
    write_weights,
)
from cxrmodel.training.speed import SPEED, typical_speed
from cxrmodel.training.vae.loop import VAETraining
from cxrmodel.training.vae.settings import resolve_config
from cxrmodel.training.vae.state import TrainingState, architecture, run_key, unpack_weights
from cxrmodel.training.vae.step import VAESteps
from cxrmodel.training.vae.validation import KL_BY_DIMENSION
from cxrmodel.training.vae.world import ALONE, World

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

__all__ = ["fit_vae", "load_vae"]

OTHER_FILES = {"best": VAE_BEST_WEIGHTS_FILE, "last": VAE_LAST_WEIGHTS_FILE}


def fit_vae(
    config: VAEConfig,
    pixels: Pixels,
    split: Path,
    directory: Path,
    *,
    checkpoints: Path,
    copies: CheckpointCopies | None = None,
    device: str = "auto",
    world: World = ALONE,
    report: ReportProgress = silent,
) -> dict[str, Any]:
    """Train the autoencoder on the train images, going on from a checkpoint where there is one.

    Killed at any instant and called again, it ends with the weights of a training that was not,
    bit for bit on one kind of device with one number of threads.

    Args:
        config: Loss and training.
        pixels: The images; their side is the network's.
        split: Folder of the split stage.
        directory: Where `vae.safetensors`, `config.json` and `history.parquet` go; beside them
            the weights that `config.weights` does not name, of the best epoch or the last.
        checkpoints: Folder for the state of the training, kept from one attempt to the next.
        copies: Where to keep copies of that state, for an attempt on another machine.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        world: The processes that share each batch; all of them call this, and process 0 writes.
        report: Told how far training is.

    Returns:
        Numbers of epochs, steps and parameters, the published epoch and its metrics; nothing on
        other processes than the first.

    Raises:
        ValueError: There is no such device, or no validation image to find the best epoch with.
        DataError: There is no train image.
        DivergedError: The loss is not finite.
        MemoryError: The device has too little memory even for one image at a time.
        ScratchSpaceError: A checkpoint could not be written.
    """
    where = resolve_device(device)
    precision = resolve_precision(config.precision, where)
    rows = split_rows(split, pixels)
    _check_best_is_defined(config, rows)
    folder = CheckpointFolder(checkpoints, run_key(config, pixels, rows, precision), copies)
    start = world.from_leader(folder.load() if world.leads else None)
    batch_size = start.batch_size if start else None
    resolved = world.from_leader(
        resolve_config(config, pixels.size, where, precision, batch_size, world.size)
    )
    with deterministic_kernels(where), keep_freed_memory(where):
        num_steps = resolved.epochs * resolved.steps_per_epoch(len(rows.train))
        steps = VAESteps(resolved, pixels.size, num_steps, where, world)
        VAETraining(resolved, pixels, rows, folder, start, steps, world, report).run()
    if not world.leads:
        return {}
    weights = _weights_of_epochs(steps, folder)
    if config.weights not in weights:
        raise DamagedArtifactError(
            f"The weights of the best epoch, {steps.state.best_epoch}, are not in "
            f"{folder.directory}. Delete that folder and run again to train afresh."
        )
    for epoch, tensors in weights.items():
        published = epoch == config.weights
        write_weights(directory / (VAE_WEIGHTS_FILE if published else OTHER_FILES[epoch]), tensors)
    write_table(directory / HISTORY_FILE, _history_table(steps.state))
    machine = {
        "device": where.type,
        **resolved.model_dump(include={"batch_size", "lr", "precision"}),
    }
    return _describe(config, pixels.size, machine, steps.state, weights[config.weights], directory)


def _check_best_is_defined(config: VAEConfig, rows: SplitRows) -> None:
    if config.weights == "best" and not len(rows.val):
        raise ValueError(
            "vae.weights is 'best', and the split has no validation image to find the best epoch "
            f"with. Set it to 'last', or use {MORE_DATA}."
        )


def _weights_of_epochs(steps: VAESteps, folder: CheckpointFolder) -> dict[str, dict[str, Tensor]]:
    """Return the weights of the last epoch and, where validation found one, of the best."""
    weights = {"last": contiguous_state(steps.model)}
    best = folder.load_best() if steps.state.best_epoch else None
    if best is not None and best.best_epoch == steps.state.best_epoch:
        weights["best"] = unpack_weights(best)
    return weights


def _history_table(state: TrainingState) -> pd.DataFrame:
    # The same training gives the same table, however fast.
    rows = pd.DataFrame(list(state.history)).drop(columns=list(SPEED), errors="ignore")
    whole = {"epoch": "int64", "step": "int64", "skipped_steps": "int64", "active_units": "Int64"}
    columns = [name for name in rows.columns if name != KL_BY_DIMENSION]
    return rows.astype({name: whole.get(name, "float64") for name in columns})


def _describe(
    config: VAEConfig,
    image_size: int,
    machine: dict[str, Any],
    state: TrainingState,
    weights: dict[str, Tensor],
    directory: Path,
) -> dict[str, Any]:
    """Write `config.json` and return the stage's summary."""
    epoch = state.best_epoch if config.weights == "best" else len(state.history)
    num_parameters = sum(tensor.numel() for tensor in weights.values())
    write_config(
        directory,
        {
            "architecture": {"image_size": image_size, **architecture(config)},
            "config": config.key_fields(),
            "num_parameters": num_parameters,
            "published_epoch": epoch,
            "seed": config.seed,
            **machine,
        },
    )
    published = {
        name: value
        for name, value in state.history[epoch - 1].items()
        if name != "epoch" and not isinstance(value, list)
    }
    return {
        "epochs": len(state.history),
        "num_parameters": num_parameters,
        "published_epoch": epoch,
        **published,
        **typical_speed(state.history),
        **machine,
    }
