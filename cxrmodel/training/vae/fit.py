"""The vae stage: train the autoencoder and publish its weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from cxrmodel.config import VAEConfig
from cxrmodel.errors import DamagedArtifactError
from cxrmodel.machine import usable_cores
from cxrmodel.models.vae import center_on
from cxrmodel.progress import ReportProgress, silent
from cxrmodel.storage.layout import (
    HISTORY_FILE,
    VAE_BEST_WEIGHTS_FILE,
    VAE_LAST_WEIGHTS_FILE,
    VAE_WEIGHTS_FILE,
)
from cxrmodel.threads import threads
from cxrmodel.training.checkpoint_copies import CheckpointCopies
from cxrmodel.training.checkpoints import Checkpoint, CheckpointFolder
from cxrmodel.training.devices import (
    deterministic_kernels,
    keep_freed_memory,
    resolve_device,
    resolve_precision,
)
from cxrmodel.training.image_batches import MORE_DATA, SplitRows, mean_image, split_rows
from cxrmodel.training.network_files import (
    contiguous_state,
    write_config,
    write_table,
    write_weights,
)
from cxrmodel.training.speed import SPEED, typical_speed
from cxrmodel.training.vae.auto_settings import resolve_config
from cxrmodel.training.vae.loop import VAETraining
from cxrmodel.training.vae.objective import make_objective
from cxrmodel.training.vae.state import (
    TrainingState,
    architecture,
    initial_vae,
    run_key,
    weights_in,
)
from cxrmodel.training.vae.step import VAESteps
from cxrmodel.training.vae.validation import KL_BY_DIMENSION
from cxrmodel.training.vae.world import ALONE, World

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

OTHER_FILES = {"best": VAE_BEST_WEIGHTS_FILE, "last": VAE_LAST_WEIGHTS_FILE}
DTYPES = {"epoch": "int64", "step": "int64", "skipped_steps": "int64", "active_units": "Int64"}

logger = logging.getLogger(__name__)


def fit_vae(
    config: VAEConfig,
    pixels: Pixels,
    split: Path,
    directory: Path,
    *,
    checkpoints: Path,
    copies: CheckpointCopies | None = None,
    device: str = "auto",
    num_threads: int | None = None,
    world: World = ALONE,
    report: ReportProgress = silent,
) -> dict[str, Any]:
    """Train the autoencoder on the train images, from a checkpoint on where there is one.

    Killed at any instant and called again, it ends with the weights of a training that was not,
    bit for bit on one kind of device with one number of threads.

    Args:
        config: Loss and training.
        pixels: The images; the network's images have the same side.
        split: Folder of the split stage.
        directory: Where `vae.safetensors`, `config.json` and `history.parquet` go; beside them
            the weights that `config.weights` does not name, of the best epoch or the last.
        checkpoints: Folder for the state of the training, kept from one attempt to the next.
        copies: Where to keep copies of that state, for an attempt on another machine.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        num_threads: Threads that compute on a CPU; None: as in the checkpoint, else as many as
            PyTorch uses now.
        world: The processes that share each batch; all of them call this, and process 0 writes.
        report: Called with the progress of the training.

    Returns:
        Numbers of epochs, steps and parameters, the published epoch and its metrics; nothing on
        processes other than the first.

    Raises:
        ValueError: There is no such device or objective, or no validation image to find the best
            epoch with.
        DataError: There is no train image.
        DivergedError: The loss is not finite.
        MemoryError: The device has too little memory even for one image at a time.
        ScratchSpaceError: A checkpoint could not be written.
    """
    where = resolve_device(device)
    precision = resolve_precision(config.precision, where)
    objective = make_objective(config)
    rows = split_rows(split, pixels)
    _check_best_is_defined(config, rows)
    folder = CheckpointFolder(checkpoints, run_key(config, pixels, rows, precision), copies)
    start = world.from_leader(_load_start(config, folder) if world.leads else None)
    batch_size = start.batch_size if start else None
    resolved = world.from_leader(
        resolve_config(config, pixels.size, where, precision, batch_size, world.size)
    )
    number = num_threads or _num_threads(start)
    with deterministic_kernels(where), keep_freed_memory(where), threads(number):
        model = initial_vae(resolved, pixels.size, where)
        if config.mean_image and start is None:
            center_on(model, mean_image(pixels, rows.train))
        num_steps = resolved.epochs * resolved.steps_per_epoch(len(rows.train))
        steps = VAESteps(resolved, objective, model, num_steps, world)
        state = steps.first_state()
        if start:
            state = steps.restore(start)
            logger.info("Training goes on after step %d.", state.step)
        state = VAETraining(
            resolved, objective, pixels, rows, steps, state, folder, world, report
        ).run()
    if not world.leads:
        return {}
    weights = {"last": contiguous_state(model), **_best_weights(config, state, folder)}
    machine = {
        "device": where.type,
        **resolved.model_dump(include={"batch_size", "lr", "precision"}),
    }
    return _publish(config, pixels.size, machine, state, weights, directory)


def _check_best_is_defined(config: VAEConfig, rows: SplitRows) -> None:
    if config.weights == "best" and not len(rows.val):
        raise ValueError(
            "vae.weights is 'best', and the split has no validation image to find the best epoch "
            f"with. Set it to 'last', or use {MORE_DATA}."
        )


def _num_threads(start: Checkpoint | None) -> int:
    """Return the number of threads to compute with: that of the checkpoint, for the same bits."""
    now, cores = torch.get_num_threads(), usable_cores()
    if start is None or start.num_threads == now:
        return now
    if start.num_threads > cores:
        logger.warning(
            "The checkpoint was computed by %d threads, and this process may use %d cores: from "
            "here on the results are rounded differently.",
            start.num_threads,
            cores,
        )
        return now
    logger.info("%d threads compute, as in the checkpoint, for the same bits.", start.num_threads)
    return start.num_threads


def _load_start(config: VAEConfig, folder: CheckpointFolder) -> Checkpoint | None:
    """Return the checkpoint to continue from, unless the best weights, if needed, are lost."""
    start = folder.load()
    if start is None or config.weights == "last" or start.best_epoch == 0:
        return start
    best = folder.load_best()
    # Of a later epoch is fine: training reaches it again, and repeats itself on the way.
    return start if best is not None and best.best_epoch >= start.best_epoch else None


def _best_weights(
    config: VAEConfig, state: TrainingState, folder: CheckpointFolder
) -> dict[str, dict[str, Tensor]]:
    best = folder.load_best() if state.best_epoch else None
    if best is not None and best.best_epoch == state.best_epoch:
        return {"best": weights_in(best)}
    if config.weights == "best":
        raise DamagedArtifactError(
            f"The weights of the best epoch, {state.best_epoch}, are not in {folder.directory}. "
            "Delete that folder and run again to train afresh."
        )
    return {}


def _publish(
    config: VAEConfig,
    image_size: int,
    machine: dict[str, Any],
    state: TrainingState,
    weights: dict[str, dict[str, Tensor]],
    directory: Path,
) -> dict[str, Any]:
    """Write the stage's files and return its summary."""
    for name, tensors in weights.items():
        file = VAE_WEIGHTS_FILE if name == config.weights else OTHER_FILES[name]
        write_weights(directory / file, tensors)
    write_table(directory / HISTORY_FILE, _history_table(state))
    epoch = state.best_epoch if config.weights == "best" else state.num_epochs
    num_parameters = sum(tensor.numel() for tensor in weights[config.weights].values())
    described = {"num_parameters": num_parameters, "published_epoch": epoch}
    write_config(
        directory,
        {
            "architecture": {"image_size": image_size, **architecture(config)},
            "config": config.key_fields(),
            "seed": config.seed,
            **described,
            **machine,
        },
    )
    metrics = {
        name: value
        for name, value in state.history[epoch - 1].items()
        if name != "epoch" and not isinstance(value, list)
    }
    speed = typical_speed(state.history)
    return {"epochs": state.num_epochs, **described, **metrics, **speed, **machine}


def _history_table(state: TrainingState) -> pd.DataFrame:
    # Without speed: the same training gives the same table, however fast.
    rows = pd.DataFrame(list(state.history)).drop(columns=list(SPEED), errors="ignore")
    columns = [name for name in rows.columns if name != KL_BY_DIMENSION]
    return rows.astype({name: DTYPES.get(name, "float64") for name in columns})
