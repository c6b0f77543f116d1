"""What a planned run needs: bytes to read, room in scratch, memory, a device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxrmodel.config import PipelineConfig
from cxrmodel.data.images.pixel_cache import PixelCache
from cxrmodel.data.images.reader import is_unfinished
from cxrmodel.storage.layout import LISTING_FILE
from cxrmodel.training.devices import resolve_device, resolve_precision
from cxrmodel.training.vae.auto_settings import (
    STATES_PER_WEIGHT,
    STEP_FACTOR,
    memory_bytes,
    resolve_config,
    saved_bytes,
)
from cxrmodel.training.vae.objective import make_objective
from cxrmodel.training.vae.state import initial_vae
from tasks.engine.preview import CACHED, Step

PIXEL_STAGES = frozenset({"images", "vae", "latents", "baselines", "report"})
PROCESS_BYTES = 300 << 20  # Python with the libraries loaded, before the first step
CHECKPOINT_WEIGHTS = 10  # three times weights and Adam's two moments, and the best weights


@dataclass(frozen=True)
class Reading:
    """What is to be read of the data set.

    Attributes:
        images: Files not decoded in scratch yet.
        bytes: Their size together.
        is_repeated: Nothing is kept: as much is read at every pass over the images.
    """

    images: int
    bytes: int
    is_repeated: bool


@dataclass(frozen=True)
class Training:
    """What training takes.

    Attributes:
        device: Where it would run.
        precision: Its arithmetic there.
        batch_size: Images a step.
        bytes: Memory it takes, about.
        bytes_there: Memory of the device; None where it is one of a Ray cluster.
        checkpoint_bytes: Room of its checkpoints in scratch, at most.
    """

    device: str
    precision: str
    batch_size: int
    bytes: int
    bytes_there: int | None
    checkpoint_bytes: int


def reading(config: PipelineConfig, steps: list[Step], index: Path) -> Reading:
    """Return what is to be read for the stages that need pixels and are not cached.

    Args:
        config: Settings of the run.
        steps: What would become of each stage.
        index: Folder of the index, made or planned.
    """
    sizes = pd.read_parquet(index / LISTING_FILE, columns=["bytes"])["bytes"]
    if all(step.state == CACHED for step in steps if step.stage in PIXEL_STAGES):
        sizes = sizes[:0]
    elif config.images.cache:
        cache = PixelCache(config.images, index, len(sizes), Path(config.store.scratch))
        sizes = sizes[is_unfinished(cache.records())]
    return Reading(len(sizes), int(sizes.sum()), not config.images.cache)


def training(config: PipelineConfig) -> Training:
    """Return what training takes on this machine, or for each worker of a Ray cluster.

    Memory is that of the weights, their gradients and Adam's two moments; of what a step saves for
    its backward pass, an image at a time, and 1.5 times as much for gradients; and of the process.

    Raises:
        ValueError: There is no such device or objective.
    """
    runtime, vae = config.runtime, config.vae
    where = resolve_device(runtime.device_here)
    precision = resolve_precision(vae.precision, where)
    model = initial_vae(vae, config.images.size, where)
    if runtime.ray_address and vae.batch_size == "auto":
        vae = vae.model_copy(update={"batch_size": 1})  # only its workers know what they have
    batch_size = resolve_config(vae, config.images.size, where, precision).batch_size
    weights = sum(weight.nbytes for weight in model.parameters())
    step = int(STEP_FACTOR * batch_size * saved_bytes(model, make_objective(vae), precision))
    process = PROCESS_BYTES if where.type == "cpu" else 0
    return Training(
        device=f"{runtime.device}, of a Ray cluster" if runtime.ray_address else str(where),
        precision=vae.precision if runtime.ray_address else precision,
        batch_size=batch_size,
        bytes=STATES_PER_WEIGHT * weights + step + process,
        bytes_there=None if runtime.ray_address else memory_bytes(where),
        checkpoint_bytes=CHECKPOINT_WEIGHTS * weights,
    )
