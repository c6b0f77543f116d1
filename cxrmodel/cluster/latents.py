"""Encoding by several processes, each with parts of the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from cxrmodel.cluster.session import Workers, device_here
from cxrmodel.config import LatentsConfig, Precision
from cxrmodel.progress import Progress, ReportProgress, silent
from cxrmodel.training.devices import resolve_device, resolve_precision
from cxrmodel.training.encoding import Coder, load_vae
from cxrmodel.training.latents import EncodedParts, LatentMeasurement, PartEncoder
from cxrmodel.training.speed import ProgressMeter

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels


@dataclass(frozen=True)
class EncodingJob:
    """An extraction, described so that any machine of the cluster can take part in it.

    Attributes:
        config: Batch size and precision.
        open_pixels: Opens the images on the machine that calls it.
        open_vae: Returns the folder of the vae stage there.
    """

    config: LatentsConfig
    open_pixels: Callable[[], Pixels]
    open_vae: Callable[[], Path]


class Encoder:
    """One process that encodes, with the network on its device."""

    def __init__(self, job: EncodingJob, workers: Workers) -> None:
        device = resolve_device(device_here(workers))
        precision = resolve_precision(job.config.precision, device)
        coder = Coder(load_vae(job.open_vae()), device, precision)
        self._measurement = LatentMeasurement(coder, job.open_pixels(), job.config.batch_size)

    def measure(self, images: pd.DataFrame) -> pa.Table:
        """Encode and score some images."""
        meter = ProgressMeter("latents", len(images), "images", silent)
        return self._measurement.measure(images, meter)


def encoder_on_cluster(job: EncodingJob, workers: Workers, report: ReportProgress) -> PartEncoder:
    """Return an encoder that uses all workers; it gives the latents that one process gives.

    A worker that dies is replaced, and its part is encoded again.

    Args:
        job: What to encode, and with what.
        workers: Processes and what each is given.
        report: Called with the number of images that are done.
    """
    import ray  # noqa: PLC0415 - an extra

    def encode_parts(images: pd.DataFrame, parts: list[range]) -> EncodedParts:
        done = len(images) - sum(len(rows) for rows in parts)
        for rows, table in _measured(job, workers, images, parts):
            yield rows, table
            done += len(rows)
            report(Progress("latents", done, len(images)))

    resolve = ray.remote(_resolve).options(num_cpus=workers.cpus, num_gpus=workers.gpus)
    device, precision = ray.get(resolve.remote(job.config.precision, workers))
    return PartEncoder(device, precision, encode_parts)


def _resolve(precision: Precision, workers: Workers) -> tuple[str, str]:
    device = resolve_device(device_here(workers))
    return device.type, resolve_precision(precision, device)


def _measured(
    job: EncodingJob, workers: Workers, images: pd.DataFrame, parts: list[range]
) -> Iterator[tuple[range, pa.Table]]:
    import ray  # noqa: PLC0415 - an extra
    from ray.util import ActorPool  # noqa: PLC0415

    process = ray.remote(Encoder).options(
        num_cpus=workers.cpus, num_gpus=workers.gpus, max_restarts=-1, max_task_retries=-1
    )
    pool = ActorPool([process.remote(job, workers) for _ in range(min(workers.number, len(parts)))])

    def start(encoder: Any, rows: range) -> Any:
        return encoder.measure.remote(images.iloc[rows.start : rows.stop])

    # In order: a result does not say which part it belongs to.
    yield from zip(parts, pool.map(start, parts), strict=True)
