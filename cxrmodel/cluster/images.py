"""Decoding by several machines, each with shards of the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cxrmodel.cluster.session import Workers
from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.pixels import decode_rows
from cxrmodel.data.images.reader import ImageReader, Records

SHARD_ROWS = 1024


@dataclass(frozen=True)
class DecodingJob:
    """What any machine of the cluster needs to decode rows of the index.

    Attributes:
        config: How to decode.
        root: Folder or URL of the data set, the same on all machines.
        open_index: Returns the folder of the index stage on the machine that calls it.
        num_workers: Threads of each worker; None: as its cores allow.
    """

    config: ImagesConfig
    root: str
    open_index: Callable[[], Path]
    num_workers: int | None = None


def decode_on_cluster(
    job: DecodingJob, workers: Workers, num_images: int
) -> Iterator[tuple[range, Records]]:
    """Decode every row for its record alone: a machine keeps the pixels when it trains with them.

    A shard whose worker dies is decoded again.

    Args:
        job: What to decode.
        workers: Processes and what each is given; only the cores of each count here.
        num_images: Rows of the index.
    """
    import ray  # noqa: PLC0415 - an extra

    decode = ray.remote(_decode).options(num_cpus=workers.cpus)
    shards = [
        range(start, min(start + SHARD_ROWS, num_images))
        for start in range(0, num_images, SHARD_ROWS)
    ]
    records = [decode.remote(job, rows) for rows in shards]
    for rows, reference in zip(shards, records, strict=True):
        yield rows, ray.get(reference)


def _decode(job: DecodingJob, rows: range) -> Records:
    reader = ImageReader(job.config, job.root, job.open_index(), job.num_workers)
    return decode_rows(reader, rows)
