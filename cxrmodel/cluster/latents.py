"""Encoding by several processes, each with parts of the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from cxrmodel.cluster.session import Workers, device_here
from cxrmodel.config import LatentsConfig, Precision
from cxrmodel.progress import Progress, ReportProgress
from cxrmodel.training.devices import resolve_device, resolve_precision
from cxrmodel.training.encoding import Coder, load_vae
from cxrmodel.training.latents import EncodedParts, Extraction, PartEncoder

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
        self._extraction = Extraction(coder, job.open_pixels(), job.config.batch_size)

    def measure(self, images: pd.DataFrame) -> pa.Table:
        """Encode and score some images."""
        return self._extraction.measure(images)


def encoder_on_cluster(job: EncodingJob, workers: Workers, report: ReportProgress) -> PartEncoder:
    """Return what encodes on all workers; the same latents as by one with as many cores.

    A worker that dies is started again, and so is what it was at.

    Args:
        job: What to encode with.
        workers: Processes and what each is given.
        report: Told how many images are done.
    """
    import ray  # noqa: PLC0415 - an extra

    resolve = ray.remote(_resolve).options(num_cpus=workers.cpus, num_gpus=workers.gpus)
    device, precision = ray.get(resolve.remote(job.config.precision, workers))
    return PartEncoder(device, precision, partial(_encode_parts, job, workers, report))


def _resolve(precision: Precision, workers: Workers) -> tuple[str, str]:
    device = resolve_device(device_here(workers))
    return device.type, resolve_precision(precision, device)


def _encode_parts(
    job: EncodingJob,
    workers: Workers,
    report: ReportProgress,
    images: pd.DataFrame,
    parts: list[range],
) -> EncodedParts:
    done = len(images) - sum(len(rows) for rows in parts)
    for rows, table in _measured(job, workers, images, parts):
        yield rows, table
        done += len(rows)
        report(Progress("latents", done, len(images)))


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

    # In order: a part's place is all that tells whose result it is.
    yield from zip(parts, pool.map(start, parts), strict=True)
