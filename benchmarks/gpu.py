"""Measure training on a GPU at growing batches: `python -m benchmarks.gpu`; adds to the page."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from benchmarks.__main__ import FLOP_AN_IMAGE, RESULTS, describe_machine, fast_config
from benchmarks.films import Films, prepare
from benchmarks.page import write_page
from cxrmodel.config import VAEConfig
from cxrmodel.progress import Progress
from cxrmodel.training import vae_training
from cxrmodel.training.vae import fit_vae

BATCHES = (1, 2, 4, 8, 16, 32, 64)
OPTIONS_BATCH, OPTIONS = 8, ("compile", "gradient_checkpointing")
MEASURED_S = 8.0
WARM_UP_STEPS = 10
MATRIX_SIDE, MATRIX_PRODUCTS = 8192, 50


class Stop(BaseException):
    """Ends a training that is being timed."""


def main() -> None:
    """Time each batch size for some seconds, and write the table."""
    if not torch.cuda.is_available():
        sys.exit("make bench-gpu: PyTorch sees no GPU here, so nothing was measured.")
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        films = prepare(None, Path(folder))
        results = describe_machine(films) | results
        rate = matrix_rate()
        batches = {str(size): measure(films, size, rate, Path(folder)) for size in BATCHES}
        for option in OPTIONS:
            batches[f"{OPTIONS_BATCH}, vae.{option}"] = measure(
                films, OPTIONS_BATCH, rate, Path(folder), **{option: True}
            )
    name = torch.cuda.get_device_name()
    results["gpu"] = {
        "device": f"{name}, bfloat16 matrix rate {rate / 1e12:.0f} TFLOP/s",
        "batches": batches,
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_page(results)


def matrix_rate() -> float:
    """Return the device's measured rate of bfloat16 matrix products, in FLOP/s."""
    matrix = torch.randn(MATRIX_SIDE, MATRIX_SIDE, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        matrix @ matrix
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(MATRIX_PRODUCTS):
        matrix @ matrix
    torch.cuda.synchronize()
    return MATRIX_PRODUCTS * 2 * MATRIX_SIDE**3 / (time.perf_counter() - start)


def measure(
    films: Films, batch_size: int, rate: float, folder: Path, **options: bool
) -> dict[str, Any]:
    """Return images a second, share of the matrix rate, loader wait and memory at one batch."""
    config = VAEConfig(
        **fast_config()[0].model_dump()
        | {"batch_size": batch_size, "epochs": 10_000, "checkpoint_every_s": 1e6}
        | options
    )
    vae_training.REPORT_EVERY_S = 1.0
    told: list[tuple[float, Progress]] = []

    def report(progress: Progress) -> None:
        if progress.done >= WARM_UP_STEPS:
            told.append((time.perf_counter(), progress))
        if told and told[-1][0] - told[0][0] > MEASURED_S:
            raise Stop

    work = folder / "-".join(["batch", str(batch_size), *options])
    work.mkdir()
    torch.cuda.reset_peak_memory_stats()
    with suppress(Stop):
        fit_vae(
            config, films.open(), films.split, work, checkpoints=work, device="cuda", report=report
        )
    (began, first), (ended, last) = told[0], told[-1]
    images_per_s = (last.done - first.done) * batch_size / (ended - began)
    waits = [progress.metrics.get("loader_wait", 0.0) for _, progress in told[1:]]
    return {
        "images_per_s": round(images_per_s, 1),
        "share_of_matrix_rate": round(images_per_s * FLOP_AN_IMAGE / rate, 3),
        "loader_wait": round(sum(waits) / len(waits), 3),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
    }


if __name__ == "__main__":
    main()
