"""Measure side by side, write `results.json` and the tables of `README.md`.

`python -m benchmarks [--data.root FOLDER] [--csv FILE] [--rounds N] [SECTION ...]`
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import runners
from benchmarks.another_site import measure_another_site
from benchmarks.busy import measure_busy
from benchmarks.data_plane import measure_data_plane
from benchmarks.drift import measure_big_window, measure_drift
from benchmarks.evaluation import measure_bootstrap
from benchmarks.full_size import measure_full_size
from benchmarks.growth import measure_growth, peak_memory
from benchmarks.joined_tables import measure_joined_tables
from benchmarks.object_store import measure_object_store
from benchmarks.orchestration import measure_orchestration
from benchmarks.page import RESULTS, write_page
from benchmarks.runners import answer_of, in_turns, median_ms, ratio
from benchmarks.sample import FLOP_PER_IMAGE, Sample, fast_config, prepare
from cxrmodel.config import ImagesConfig, VAEConfig
from cxrmodel.data.images.decode import decode_image
from cxrmodel.training.vae.fit import fit_vae

NUM_ROUNDS = 7
PRODUCT_BATCHES, MONAI_BATCHES, MEMORY_BATCH = (4, 8), (1, 4), 8

Section = Callable[[Sample, argparse.Namespace, Path], dict[str, Any]]


def main() -> None:
    """Run the sections asked for, all by default: about fifty minutes on two cores."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--data.root", dest="root", help="local data set; else synthetic images")
    parser.add_argument("--csv", type=Path, help="NIH's CSV, for the stages at the real size")
    parser.add_argument("--rounds", type=int, default=NUM_ROUNDS, help="turns of each runner")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    arguments = parser.parse_args()
    unknown = set(arguments.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        sample = prepare(arguments.root, Path(folder))
        machine = describe_machine(sample)
        measured = results["processors"].setdefault(_processor(machine["machine"]), {})
        measured |= machine
        for name in arguments.sections or SECTIONS:
            work = Path(folder) / f"section-{name}"
            work.mkdir()
            measured[name] = SECTIONS[name](sample, arguments, work)
            print(f"{name}: {json.dumps(measured[name], indent=1)}", flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_page(results)


def measure_training(sample: Sample, arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Time `fit_vae`, the notebook's loop, MONAI's network and matrix products in turns."""
    processes: dict[str, tuple[Any, ...]] = {
        "notebook": (runners.notebook_training, sample, 6),
        "matmul": (runners.matrix_products,),
    }
    fast = fast_config()[0].model_copy(update={"epochs": 1000, "checkpoint_every_s": 1e6})
    for precision in ("float32", "bfloat16"):
        for size in PRODUCT_BATCHES:
            name = f"product_{precision}_batch_{size}"
            config = fast.model_copy(update={"precision": precision, "batch_size": size})
            processes[name] = (runners.product_training, sample, config, 3, work / name)
        for size in MONAI_BATCHES if importlib.util.find_spec("monai") else ():
            name = f"monai_{precision}_batch_{size}"
            processes[name] = (runners.monai_training, sample, 4, size, precision)
    times = in_turns(processes, arguments.rounds)
    flops = [seconds * FLOP_PER_IMAGE for seconds in times["matmul"]]
    memory = fast.model_copy(update={"precision": "bfloat16", "batch_size": MEMORY_BATCH})
    return {
        "speedup_vs_notebook": ratio(times["notebook"], _best(times, "product_bfloat16")),
        "float32_speedup_vs_notebook": ratio(times["notebook"], _best(times, "product_float32")),
        **_against_monai(times),
        "share_of_bf16_matmul": ratio(flops, _best(times, "product_bfloat16")),
        "bf16_matmul_gflop_per_s": round(1e-9 / statistics.median(times["matmul"])),
        "peak_memory_gib_batch_8": answer_of(peak_memory, sample, memory, work),
        "ms_per_image": {name: median_ms(t) for name, t in times.items() if name != "matmul"},
    }


def _best(times: dict[str, list[float]], kind: str) -> list[float]:
    """Return the times at the best batch size."""
    return min((t for name, t in times.items() if name.startswith(kind)), key=statistics.median)


def _against_monai(times: dict[str, list[float]]) -> dict[str, Any]:
    """Return the speed-ups over MONAI, each at its own best batch size."""
    if not any(name.startswith("monai") for name in times):
        return {}
    return {
        name: ratio(_best(times, f"monai_{precision}"), _best(times, f"product_{precision}"))
        for name, precision in (
            ("speedup_vs_monai_bfloat16", "bfloat16"),
            ("float32_speedup_vs_monai", "float32"),
        )
    }


def measure_latents(sample: Sample, arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Time encoding, the whole stage and the notebook's encoding in turns."""
    vae, stage, config = work / "vae", work / "stage", fast_config()[1]
    vae.mkdir()
    stage.mkdir()
    tiny = VAEConfig(epochs=1, batch_size=8, precision="auto")
    fit_vae(tiny, sample.open(), sample.split, vae, checkpoints=work / "c", device="cpu")
    times = in_turns(
        {
            "notebook": (runners.notebook_encoding, sample, 16),
            "matmul": (runners.matrix_products,),
            "product": (runners.product_encoding, sample, config, vae, 40),
            "stage": (runners.product_extraction, sample, config, vae, stage),
            "prediction": (runners.product_prediction, sample, config, vae, 40),
            "reading": (runners.product_reading, sample, vae),
            "decoding": (runners.decoding, sample),
        },
        arguments.rounds,
    )
    flops = [seconds * FLOP_PER_IMAGE / 6 for seconds in times["matmul"]]  # encoder, forward only
    return {
        "speedup_vs_notebook": ratio(times["notebook"], times["product"]),
        "share_of_bf16_matmul": ratio(flops, times["product"]),
        "stage_speedup_vs_notebook": ratio(times["notebook"], times["stage"]),
        "prediction_vs_stage": ratio(times["stage"], times["prediction"]),
        "reading_vs_decoding": ratio(times["decoding"], times["reading"]),
        "ms_per_image": {name: median_ms(t) for name, t in times.items() if name != "matmul"},
    }


def measure_pixels(sample: Sample, arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Time reading a row of the memory map and decoding its file, one after the other."""
    pixels, config = sample.open(), ImagesConfig()
    read, decode = [], []
    for row, path in enumerate(sample.paths):
        pixels.read(np.array([row]))  # the first read verifies a checksum
        start = time.perf_counter()
        pixels.read(np.array([row]))
        read.append(time.perf_counter() - start)
        start = time.perf_counter()
        decode_image(path.read_bytes(), config)
        decode.append(time.perf_counter() - start)
    return {
        "read_speedup_vs_decode": ratio(decode, read),
        "ms_per_image": {"read": median_ms(read), "decode": median_ms(decode)},
        **measure_object_store(sample, arguments.rounds, work),
    }


SECTIONS: dict[str, Section] = {
    "training": measure_training,
    "latents": measure_latents,
    "pixels": measure_pixels,
    "busy": lambda sample, arguments, _: measure_busy(
        sample, fast_config()[0], max(1, arguments.rounds // 2)
    ),
    "growth": lambda sample, _, work: measure_growth(sample, fast_config()[0], work / "growth"),
    "data_plane": lambda _, arguments, work: measure_data_plane(work, arguments.csv),
    "joined_tables": lambda _, arguments, work: measure_joined_tables(work, arguments.csv),
    "full_size": lambda _, arguments, work: measure_full_size(work, arguments.csv),
    "drift": lambda _, __, work: measure_drift(work),
    "big_window": lambda *_: measure_big_window(),
    "bootstrap": lambda *_: measure_bootstrap(),
    "another_site": lambda _, __, work: measure_another_site(work),
    "orchestration": lambda _, arguments, work: measure_orchestration(
        work, max(1, arguments.rounds // 3)
    ),
}


def _processor(machine: dict[str, Any]) -> str:
    """Return the processor's name, under which its figures are kept beside others'."""
    return f"{machine['cpu']}, {'with' if machine['amx_bf16'] else 'without'} AMX"


def describe_machine(sample: Sample) -> dict[str, Any]:
    """Return the machine and the versions that the numbers were measured with."""
    capabilities = torch.cpu.get_capabilities()
    return {
        "machine": {
            "cpu": capabilities.get("cpu_name", platform.processor()),
            "architecture": platform.machine(),
            "threads": torch.get_num_threads(),
            "amx_bf16": bool(capabilities.get("amx_bf16", False)),
            "avx512_bf16": bool(capabilities.get("avx512_bf16", False)),
            "images": "synthetic" if sample.root.parent == sample.work else "of a data set",
        },
        "versions": {name: __import__(name).__version__ for name in ("torch", "numpy", "PIL")}
        | {"python": platform.python_version()},
    }


if __name__ == "__main__":
    main()
