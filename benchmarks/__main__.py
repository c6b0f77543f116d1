"""Measure, print a table and write `results.json`: `python -m benchmarks [--data.root FOLDER]`."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks import runners
from benchmarks.films import Films, prepare
from cxrmodel.config import ImagesConfig, LatentsConfig, VAEConfig
from cxrmodel.data.images import decode_image
from cxrmodel.training.vae import fit_vae

FAST = Path(__file__).parents[1] / "configs" / "fast.yaml"
RESULTS = Path(__file__).with_name("results.json")
FLOP_AN_IMAGE = 29.7e9  # forward and backward at 1024 px
NUM_ROUNDS = 7
GOALS = {
    "vae_train_speedup_vs_notebook": (">=", 1.9, "x"),
    "vae_train_share_of_bf16_matmul": (">=", 0.45, ""),
    "latents_speedup_vs_notebook": (">=", 2.2, "x"),
    "latents_stage_speedup_vs_notebook": ("", None, "x, decoding and scoring too"),
    "cache_read_speedup_vs_decode": (">=", 50, "x"),
    "peak_memory_gib_batch_8": ("<", 3, "GiB"),
}

Runner = Callable[..., None]
spawn = multiprocessing.get_context("spawn")


def main() -> None:
    """Run everything, about five minutes on two cores."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--data.root", dest="root", help="local data set; else synthetic films")
    parser.add_argument("--rounds", type=int, default=NUM_ROUNDS, help="turns of each runner")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(arguments.root, arguments.rounds, Path(folder))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print_table(results)


def measure(root: str | None, num_rounds: int, work: Path) -> dict[str, Any]:
    """Return all results; ratios are medians over rounds of what ran side by side."""
    films = prepare(root, work)
    fast = yaml.safe_load(FAST.read_text(encoding="utf-8"))
    vae, latents = VAEConfig(**fast["vae"]), LatentsConfig(**fast["latents"])
    train = measure_training(films, vae, num_rounds, work)
    encode = measure_latents(films, latents, num_rounds, work)
    read, decode = measure_cache(films)
    memory = measure_memory(films, vae.model_copy(update={"batch_size": 8, "epochs": 1}), work)
    return {
        "vae_train_speedup_vs_notebook": ratio(train["notebook"], train["product"]),
        "vae_train_share_of_bf16_matmul": ratio(
            [seconds * FLOP_AN_IMAGE for seconds in train["matmul"]], train["product"]
        ),
        "latents_speedup_vs_notebook": ratio(encode["notebook"], encode["product"]),
        "latents_stage_speedup_vs_notebook": ratio(encode["notebook"], encode["stage"]),
        "cache_read_speedup_vs_decode": ratio(decode, read),
        "peak_memory_gib_batch_8": round(memory, 2),
        "milliseconds": {
            "notebook_train_an_image": median_ms(train["notebook"]),
            "product_train_an_image": median_ms(train["product"]),
            "notebook_encode_an_image": median_ms(encode["notebook"]),
            "product_encode_an_image": median_ms(encode["product"]),
            "product_latents_stage_an_image": median_ms(encode["stage"]),
            "cache_read": median_ms(read),
            "decode": median_ms(decode),
        },
        "bf16_matmul_gflop_per_s": round(1e-9 / statistics.median(train["matmul"])),
        "machine": describe_machine(films),
        "versions": {name: __import__(name).__version__ for name in ("torch", "numpy", "PIL")}
        | {"python": platform.python_version()},
    }


def measure_training(
    films: Films, config: VAEConfig, num_rounds: int, work: Path
) -> dict[str, list[float]]:
    """Time `fit_vae`, the notebook's loop and matrix products in turns."""
    (work / "timed").mkdir()
    long = config.model_copy(update={"epochs": 1000, "checkpoint_every_s": 1e6})
    return in_turns(
        {
            "notebook": (runners.notebook_training, films, 6),
            "matmul": (runners.matrix_products,),
            "product": (runners.product_training, films, long, 5, work / "timed"),
        },
        num_rounds,
    )


def measure_latents(
    films: Films, config: LatentsConfig, num_rounds: int, work: Path
) -> dict[str, list[float]]:
    """Time encoding, the whole stage and the notebook's encoding in turns."""
    vae, stage = work / "vae", work / "stage"
    vae.mkdir()
    stage.mkdir()
    tiny = VAEConfig(epochs=1, batch_size=8, precision="auto")
    fit_vae(tiny, films.open(), films.split, vae, checkpoints=work / "c", device="cpu")
    return in_turns(
        {
            "notebook": (runners.notebook_encoding, films, 16),
            "product": (runners.product_encoding, films, config, vae, 40),
            "stage": (runners.product_extraction, films, config, vae, stage),
        },
        num_rounds,
    )


def in_turns(processes: dict[str, tuple[Any, ...]], num_rounds: int) -> dict[str, list[float]]:
    """Let processes work one at a time, round after round; the first round warms up."""
    ends: dict[str, Connection] = {}
    workers = []
    for name, (runner, *arguments) in processes.items():
        ends[name], theirs = spawn.Pipe()
        workers.append(spawn.Process(target=runner, args=(theirs, *arguments), daemon=True))
        workers[-1].start()
        theirs.close()
        ends[name].recv()
    seconds: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(num_rounds + 1):
        for name, end in ends.items():
            end.send(True)
            seconds[name].append(end.recv())
    for end, worker in zip(ends.values(), workers, strict=True):
        end.send(False)
        worker.join()
    return {name: values[1:] for name, values in seconds.items()}


def measure_cache(films: Films) -> tuple[list[float], list[float]]:
    """Time reading a row of the memory map and decoding its file, one after the other."""
    pixels, config = films.open(), ImagesConfig()
    read, decode = [], []
    for row, path in enumerate(films.paths):
        pixels.read(np.array([row]))  # the first read verifies a checksum
        start = time.perf_counter()
        pixels.read(np.array([row]))
        read.append(time.perf_counter() - start)
        start = time.perf_counter()
        decode_image(path.read_bytes(), config)
        decode.append(time.perf_counter() - start)
    return read, decode


def measure_memory(films: Films, config: VAEConfig, work: Path) -> float:
    """Return the peak of a process that trains, in GiB."""
    (work / "memory").mkdir()
    ours, theirs = spawn.Pipe()
    process = spawn.Process(
        target=runners.peak_memory, args=(theirs, films, config, work / "memory")
    )
    process.start()
    theirs.close()
    gib = float(ours.recv())
    process.join()
    return gib


def ratio(slow: list[float], fast: list[float]) -> float:
    """Return the median of the ratios of what ran next to each other."""
    return round(statistics.median(s / f for s, f in zip(slow, fast, strict=True)), 2)


def median_ms(seconds: list[float]) -> float:
    """Return a median in milliseconds."""
    return round(1e3 * statistics.median(seconds), 3)


def describe_machine(films: Films) -> dict[str, Any]:
    """Say what the numbers were measured on."""
    capabilities = torch.cpu.get_capabilities()
    return {
        "cpu": capabilities.get("cpu_name", platform.processor()),
        "architecture": platform.machine(),
        "threads": torch.get_num_threads(),
        "amx_bf16": bool(capabilities.get("amx_bf16", False)),
        "avx512_bf16": bool(capabilities.get("avx512_bf16", False)),
        "films": "synthetic" if films.root.parent == films.work else "of a data set",
    }


def print_table(results: dict[str, Any]) -> None:
    """Print each result beside its goal."""
    for name, (sign, goal, unit) in GOALS.items():
        aim = f"goal {sign} {goal}" if goal is not None else ""
        print(f"{name:36} {results[name]:8.2f} {unit:28} {aim}")
    for name, value in results["milliseconds"].items():
        print(f"{name:36} {value:8.2f} ms")
    print(f"{'bf16_matmul_gflop_per_s':36} {results['bf16_matmul_gflop_per_s']:8d}")


if __name__ == "__main__":
    main()
