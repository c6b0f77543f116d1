"""Decoding images from a real S3 server on this machine, compared with decoding from memory."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.sample import Sample, prepare
from cxrmodel.config import DataConfig, ImagesConfig
from cxrmodel.data.images.decode import decode_image
from cxrmodel.data.images.reader import ImageReader
from cxrmodel.data.index import build_index
from cxrmodel.data.source import scan_source
from tests.servers.ceph import REGION, Ceph, missing_programs
from tests.servers.fault_proxy import FaultProxy

BUCKET, SMALL = "images", "small-images"
SMALL_SIDE = 128
LATENCY_S = 0.05
NUM_ALONE = 16


def measure_object_store(sample: Sample, num_rounds: int, work: Path) -> dict[str, Any]:
    """Return shares and speed-ups, medians over rounds of what ran one after the other.

    Returns:
        s3_decode_share: Images per second from an S3 server on the other half of the cores, over
            decoding from memory on the same half.
        s3_decode_share_beside_server: The same with the server on the same cores.
        s3_speedup_at_50_ms: Small images per second with 50 ms of latency, over one at a time; they
            are small so that it is the network that is timed.
        Nothing where Ceph is not installed.
    """
    if missing_programs():
        return {}
    cores = sorted(os.sched_getaffinity(0))
    servers, ours = cores[: len(cores) // 2] or cores, cores[len(cores) // 2 :]
    ceph = Ceph()
    os.sched_setaffinity(0, servers)
    ceph.start()
    try:
        with _environment(ceph, ceph.endpoint):
            index = _upload(ceph, sample, work, BUCKET)
            small = _upload(ceph, sample, work, SMALL, SMALL_SIDE)
            os.sched_setaffinity(0, ours)
            apart = _measure_share(sample, index, num_rounds)
            os.sched_setaffinity(0, servers)
            beside = _measure_share(sample, index, num_rounds)
        os.sched_setaffinity(0, cores)
        with _slow_proxy(ceph) as endpoint, _environment(ceph, endpoint):
            speedup = _measure_speedup(small, num_rounds)
        return {
            "s3_decode_share": round(apart, 3),
            "s3_decode_share_beside_server": round(beside, 3),
            "s3_speedup_at_50_ms": round(speedup, 1),
        }
    finally:
        os.sched_setaffinity(0, cores)
        ceph.stop()


def _upload(ceph: Ceph, sample: Sample, work: Path, bucket: str, side: int | None = None) -> Path:
    """Store the images, or small copies, in a bucket, and return the folder of its index."""
    client = ceph.client()
    client.create_bucket(Bucket=bucket)
    csv = next(sample.root.rglob("*.csv"))
    for path in (csv, *sample.paths):
        content = path.read_bytes() if side is None or path == csv else _shrunk(path, side)
        key = path.relative_to(sample.root).as_posix()
        client.put_object(Bucket=bucket, Key=key, Body=content)
    config = DataConfig(root=f"s3://{bucket}")
    index = work / bucket
    index.mkdir()
    build_index(config, scan_source(config, work / "s3-scratch"), index)
    return index


def _shrunk(path: Path, side: int) -> bytes:
    stream = io.BytesIO()
    Image.open(path).convert("L").resize((side, side)).save(stream, "PNG")
    return stream.getvalue()


def _measure_share(sample: Sample, index: Path, num_rounds: int) -> float:
    config = ImagesConfig()
    reader = ImageReader(config, f"s3://{BUCKET}", index)
    rows = range(len(reader.names))
    contents = [path.read_bytes() for path in sample.paths]

    def decode(content: bytes) -> int:
        return zlib.crc32(decode_image(content, config).pixels.data)

    def from_memory() -> None:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            assert len(list(pool.map(decode, contents))) == len(rows)

    def from_s3() -> None:
        assert all(image.status == "ok" for image in reader.decode_many(rows))

    return _median_ratio(from_memory, from_s3, num_rounds)


def _measure_speedup(index: Path, num_rounds: int) -> float:
    reader = ImageReader(ImagesConfig(size=SMALL_SIDE), f"s3://{SMALL}", index)
    rows = range(len(reader.names))

    def at_once() -> None:
        assert all(image.status == "ok" for image in reader.decode_many(rows))

    def one_at_a_time() -> None:
        assert all(reader.decode(row).status == "ok" for row in rows[:NUM_ALONE])

    return _median_ratio(one_at_a_time, at_once, num_rounds) * len(rows) / NUM_ALONE


def _median_ratio(
    numerator: Callable[[], None], denominator: Callable[[], None], num_rounds: int
) -> float:
    """Return the median ratio of seconds; the first round warms up."""
    rounds = [_timed(numerator)[0] / _timed(denominator)[0] for _ in range(num_rounds + 1)]
    return statistics.median(rounds[1:])


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


@contextmanager
def _environment(ceph: Ceph, endpoint: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ceph.credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": ceph.credentials.secret_key,
        "AWS_DEFAULT_REGION": REGION,
    }
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


@contextmanager
def _slow_proxy(ceph: Ceph) -> Iterator[str]:
    """Run the proxy in a process of its own, so that it does not hold up the reader's threads."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_delay, args=(theirs, ceph.endpoint), daemon=True)
    process.start()
    yield ours.recv()
    process.kill()
    process.join()


def _delay(end: Connection, upstream: str) -> None:
    proxy = FaultProxy(upstream)
    proxy.add("latency", seconds=LATENCY_S)
    end.send(proxy.endpoint)
    end.poll(None)


def main() -> None:
    """Measure alone: `python -m benchmarks.object_store [FOLDER]`."""
    root = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        print(json.dumps(measure_object_store(prepare(root, work), 5, work), indent=1))


if __name__ == "__main__":
    main()
