"""What training costs beside other processes, and where it may use one core alone."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.growth import SmallPixels
from benchmarks.runners import Stop, spawn
from benchmarks.sample import RepeatedPixels, Sample
from cxrmodel.config import VAEConfig
from cxrmodel.progress import Progress
from cxrmodel.threads import use_threads
from cxrmodel.training import speed
from cxrmodel.training.vae.fit import fit_vae

SIDE, BATCH_SIZE = 128, 4
WARM_UP_S, MEASURED_S = 1.0, 6.0
NUM_IMAGES = 200_000  # so many that no epoch ends


def measure_busy(sample: Sample, config: VAEConfig, rounds: int) -> dict[str, Any]:
    """Train small images alone, beside a busy process, beside another training, on one core.

    Each training finds out by itself how many threads to use, and a second one is given one
    thread, or all cores, to compare with.

    Returns:
        Ratios of images per second, each the median over rounds.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return {}  # then the number of threads is not found out
    config = config.model_copy(
        update={"batch_size": BATCH_SIZE, "epochs": 1, "checkpoint_every_s": 1e6, "weights": "last"}
    )
    found: dict[str, list[float]] = {}

    def keep(name: str, *rates: float) -> float:
        found.setdefault(name, []).append(sum(rates))
        return found[name][-1]

    for _ in range(rounds):
        quiet = keep("quiet", *trained(sample, config))
        keep("quiet_over_all_cores", quiet / sum(trained(sample, config, num_threads=_cores())))
        with busy_process():
            beside = keep("beside", *trained(sample, config))
            all_cores = sum(trained(sample, config, num_threads=_cores()))
        keep("beside_busy_over_quiet", beside / quiet)
        keep("beside_busy_over_all_cores", beside / all_cores)
        keep("two_over_one", sum(trained(sample, config, number=2)) / quiet)
        one = sum(trained(sample, config, num_threads=1))
        keep("one_core_over_one_thread", sum(trained(sample, config, cores=1)) / one)
    ratios = {name: values for name, values in found.items() if "over" in name}
    return {name: round(statistics.median(values), 2) for name, values in ratios.items()}


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@contextmanager
def busy_process() -> Iterator[None]:
    """Keep one core busy."""
    process = spawn.Process(target=_count, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _count() -> None:
    while True:
        pass


def trained(
    sample: Sample,
    config: VAEConfig,
    *,
    number: int = 1,
    num_threads: int | None = None,
    cores: int | None = None,
) -> list[float]:
    """Return the images per second of trainings at the same time, each in its own process.

    Args:
        sample: The images.
        config: Settings.
        number: How many trainings.
        num_threads: Of each; None: each finds it out.
        cores: How many it may use; None: all.
    """
    ends, processes = [], []
    for _ in range(number):
        ours, theirs = spawn.Pipe()
        arguments = (theirs, sample, config, num_threads, cores)
        processes.append(spawn.Process(target=_train, args=arguments))
        processes[-1].start()
        theirs.close()
        ends.append(ours)
    for step in ("ready", "threads are chosen"):
        for end in ends:
            assert end.recv() == step
        for end in ends:
            end.send("go on")
    rates = [end.recv() for end in ends]
    for process in processes:
        process.join()
    return rates


def _train(
    answer: Connection,
    sample: Sample,
    config: VAEConfig,
    num_threads: int | None,
    cores: int | None,
) -> None:
    if cores is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    speed.REPORT_EVERY_S = 0.0  # after every step
    pixels = RepeatedPixels(SmallPixels(sample.open(), SIDE), NUM_IMAGES)
    told: list[tuple[float, int]] = []

    def report(progress: Progress) -> None:
        told.append((time.perf_counter(), progress.done))
        if told[-1][0] - told[0][0] > WARM_UP_S + MEASURED_S:
            raise Stop

    with tempfile.TemporaryDirectory() as folder, suppress(Stop):
        split = pixels.write_split(Path(folder) / "split")
        _wait(answer, "ready")
        chosen = use_threads(num_threads)
        _wait(answer, "threads are chosen")
        fit_vae(
            config, pixels, split, Path(folder), checkpoints=Path(folder), device="cpu",
            num_threads=chosen, report=report,
        )  # fmt: skip
    measured = [one for one in told if one[0] - told[0][0] > WARM_UP_S]
    (began, first), (ended, last) = measured[0], measured[-1]
    answer.send((last - first) * config.batch_size / (ended - began))


def _wait(answer: Connection, step: str) -> None:
    """Go on together with the others: all of them are busy at the same time."""
    answer.send(step)
    answer.recv()
